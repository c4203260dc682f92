import os

ROOT_URLCONF = "django_urls"
ALLOWED_HOSTS = ["*"]
MIDDLEWARE = ["approov_verify.django.ApproovMiddleware"]
APPROOV = {"public_url": os.environ["PUBLIC_URL"], "secret": os.environ["APPROOV_SECRET"], "proof": "required"}

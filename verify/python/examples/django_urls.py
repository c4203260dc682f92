import json

from django.http import JsonResponse
from django.urls import path


def order(request):
    return JsonResponse({"ordered": json.loads(request.body), "from": request.approov.claims["ip"]})


urlpatterns = [path("order", order)]

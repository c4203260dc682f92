-- The action `http-request lua.approov URL`: asks the gate at URL whether a request may pass.

local timeout = 3000 -- milliseconds
local identity = { "approov-verified", "approov-channel", "approov-key", "approov-claims", "approov-message", "approov-would-fail", "approov-policy" }
-- For the client of a refusal.
local told = {
  "www-authenticate", "dpop-nonce", "content-type", "cache-control", "retry-after", "vary",
  "access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers",
}
-- What is of the connection, and what the gate must have from here alone.
local left_out = {
  ["connection"] = true, ["keep-alive"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
  ["expect"] = true, ["host"] = true, ["content-length"] = true,
  ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true, ["x-forwarded-host"] = true,
}

local function refuse(txn, status, headers, body)
  local reply = txn:reply()
  reply:set_status(status)
  for name, value in pairs(headers) do reply:add_header(name, value) end
  reply:set_body(body)
  txn:done(reply)
end

local function unavailable(txn, why)
  txn:Warning("approov: " .. why)
  refuse(txn, 503, { ["cache-control"] = "no-store" }, "")
end

core.register_action("approov", { "http-req" }, function(txn, url)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not left_out[name] then
      headers[name] = {}
      for index = 0, #values do headers[name][index + 1] = values[index] end
    end
  end
  local body = txn.sf:req_body()
  local length = tonumber(txn.sf:req_body_size()) or 0
  if length > #body then
    return refuse(txn, 413, { ["cache-control"] = "no-store" }, "")
  end
  headers["x-forwarded-method"] = { txn.sf:method() }
  headers["x-forwarded-uri"] = { txn.sf:pathq() }
  headers["x-forwarded-host"] = { txn.sf:hdr("host") }
  local response = core.httpclient():post({ url = url, headers = headers, body = body, timeout = timeout })
  if not response or not response.status or response.status < 200 then
    return unavailable(txn, "the gate does not respond")
  end
  local function value(name)
    local values = response.headers and response.headers[name]
    return values and values[0]
  end
  if response.status ~= 200 then
    local passed_on = {}
    for _, name in ipairs(told) do passed_on[name] = value(name) end
    -- 500 and more: the gate's operator has to look, or it does not respond.
    return refuse(txn, response.status >= 500 and 503 or response.status, passed_on, response.body or "")
  end
  -- Each of them is in every verdict, so that none of a client's passes.
  for _, name in ipairs(identity) do
    if not value(name) then return unavailable(txn, "the gate's verdict has no " .. name) end
    txn.http:req_set_header(name, value(name))
  end
  if value("dpop-nonce") then txn:set_var("txn.approov_nonce", value("dpop-nonce")) end
end, 1)

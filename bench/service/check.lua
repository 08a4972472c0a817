-- check.lua - lets wrk compare every response with the expected one and tell its figures as JSON.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  expected = args[1]
  wrong = 0
end

function response(status, headers, body)
  if status ~= 200 or body ~= expected then wrong = wrong + 1 end
end

function done(summary, latency, requests)
  local all_wrong = 0
  for _, thread in ipairs(threads) do all_wrong = all_wrong + thread:get("wrong") end
  local e = summary.errors
  io.write(string.format('{"requests": %d, "seconds": %.6f, "wrong": %d, "failed": %d}\n', summary.requests,
    summary.duration / 1e6, all_wrong, e.connect + e.read + e.write + e.timeout))
end

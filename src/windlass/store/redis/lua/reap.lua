#!lua flags=allow-oom
-- Unregister the workers whose lease is over. ARGV: the worker to spare; the ids of those that are gone.
local t, gone = now(), {}
local worker, till = ahead(steady())
while worker do -- its lease begins now
  call('ZADD', P .. 'leases', till, worker)
  worker, till = ahead(steady())
end
for _, worker in ipairs(call('ZRANGE', P .. 'leases', '-inf', '(' .. format('%.0f', steady()), 'BYSCORE',
    'LIMIT', 0, BATCH)) do
  if worker ~= ARGV[1] then
    depart_worker(worker, 'lost', t)
    gone[#gone + 1] = worker
  end
end
if #gone > 0 then
  ring('work')
end
return gone

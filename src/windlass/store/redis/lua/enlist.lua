#!lua flags=allow-oom
-- Register a worker, or with ARGV[4] a runner of that worker. ARGV: id, lease or 0, what to keep, the worker.
-- Answers 'known' for an id that was ever used, 'gone' if the worker is.
local id, lease, info, worker = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
if call('ZSCORE', P .. 'departed', id) or call('HEXISTS', P .. 'workers', id) == 1 or
    call('HEXISTS', P .. 'runners', id) == 1 then
  return 'known'
end
if not worker then
  call('HSET', P .. 'workers', id, pack(lease, now()) .. info)
  call('ZADD', P .. 'leases', steady() + lease, id)
  return 'in'
end
if call('HEXISTS', P .. 'workers', worker) == 0 then
  return 'gone'
end
call('HSET', P .. 'runners', id, pack(worker, now()) .. info)
call('HSET', P .. 'seqs', id, 0)
call('SADD', P .. 'crew:' .. worker, id)
return 'in'

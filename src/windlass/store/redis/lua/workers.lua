#!lua flags=no-writes
-- Workers as (id, info, end of the lease) and runners as (id, info, how many jobs it holds), and the steady time.
local workers, runners = {}, {}
local found = call('HGETALL', P .. 'workers')
for n = 1, #found, 2 do
  local at = #workers
  workers[at + 1], workers[at + 2] = found[n], found[n + 1]
  workers[at + 3] = tonumber(call('ZSCORE', P .. 'leases', found[n])) or 0
end
found = call('HGETALL', P .. 'runners')
for n = 1, #found, 2 do
  local at = #runners
  runners[at + 1], runners[at + 2] = found[n], found[n + 1]
  runners[at + 3] = call('SCARD', P .. 'held:' .. found[n])
end
return {steady(), workers, runners}

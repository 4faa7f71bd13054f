#!lua flags=allow-oom
-- Renew a worker's lease. ARGV: worker, what its runners hold (runner, seq, "id fence"…). Answers 'evicted', or the
-- orders (runner, id, fence), microseconds until a job is due (-1: none is) and until a schedule is, whether a lease is
-- over, and whether there is a job to lift, at the latest in so many microseconds: the third argument.
local worker = ARGV[1]
local lease = lease_of(worker)
if not lease then
  return 'evicted'
end
local t, pulse = now(), steady()
call('ZADD', P .. 'leases', pulse + lease, worker)

local orders = {}
for _, runner in ipairs(call('SMEMBERS', P .. 'crew:' .. worker)) do
  for _, id in ipairs(call('SMEMBERS', P .. 'cancel:' .. runner)) do
    local _, fence = read(call('HGET', NEWS, id), 2)
    if type(fence) == 'number' then
      local at = #orders
      orders[at + 1], orders[at + 2], orders[at + 3] = runner, id, fence
    end
  end
end
local due = 0
if call('EXISTS', LINES) == 0 then
  local first = tonumber(call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2] or nil)
  local look = next_look(t) or first
  first = look and min(look, first or look)
  due = first and max(0, first - t) or -1
end
local fire = -1
for _, kind in ipairs({'schedule', 'pending'}) do
  local first = call('ZRANGE', P .. 'dd:' .. kind, 0, 0, 'WITHSCORES')[2]
  local left = first and max(0, tonumber(first) - t)
  if left and (fire < 0 or left < fire) then
    fire = left
  end
end
local dead = call('ZCOUNT', P .. 'leases', '-inf', '(' .. format('%.0f', pulse)) > 0 or ahead(pulse) ~= nil

local back = 0
for _, word in ipairs(cmsgpack.unpack(ARGV[2])) do
  local claims = {}
  for n = 3, #word do
    claims[word[n]] = true
  end
  back = back + hand_back(word[1], 'interrupted', t, {seq = word[2], claims = claims})
end
if back > 0 then
  ring('work')
end
local lags = call('ZCOUNT', BEHIND, '-inf', format('%.0f', t + tonumber(ARGV[3]))) > 0
return {orders, due, fire, dead and 1 or 0, lags and 1 or 0}

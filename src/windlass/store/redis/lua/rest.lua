#!lua flags=allow-oom
-- Free gates of running jobs that wait for others, and give them to those that wait no more. ARGV: runner, the former and
-- the latter (id, fence, seq, families); the ids of those that have them.
local t = now()

-- What an attempt that runs takes of the gates that this is about; nil if it does not run.
local function rested(list, n)
  local raw = call('HGET', NEWS, list[n])
  local job = raw and load(list[n], raw)
  if not job or job.state ~= 'r' or job.fence ~= list[n + 1] or job.seq ~= list[n + 2] or job.runner ~= ARGV[1] then
    return nil
  end
  local families, found = {}, {}
  for _, family in ipairs(list[n + 3]) do
    families[family] = true
  end
  for _, need in ipairs((gates_of(job.id, line_of(job)))) do
    if not need.keep and families[string.match(need.gate, '^[^/]*')] then
      found[#found + 1] = need
    end
  end
  return found
end

-- What is taken of a gate, places that are kept left out.
local function used_by_others(name)
  local sum, holders = 0, call('HGETALL', P .. 'holds:' .. name)
  for n = 1, #holders, 2 do
    if sub(holders[n], 1, 1) ~= '~' then
      sum = sum + math.abs(tonumber(holders[n + 1]) or 0)
    end
  end
  return sum
end

local leaving, entering, back = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3]), {}
for n = 1, #leaving, 4 do
  for _, need in ipairs(rested(leaving, n) or {}) do
    if call('HDEL', P .. 'holds:' .. need.gate, leaving[n], '~' .. leaving[n]) > 0 then
      free_gate(need.gate)
    end
  end
end
flush()
for n = 1, #entering, 4 do
  local needs, missing, fine = rested(entering, n), {}, true
  for _, need in ipairs(needs or {}) do
    if call('HEXISTS', P .. 'holds:' .. need.gate, entering[n]) == 0 then
      local gate = gate_of(need.gate, t)
      missing[#missing + 1] = need
      fine = fine and (not gate.limit or gate.limit - used_by_others(need.gate) >= share(gate, need.weight))
    end
  end
  for _, need in ipairs(missing) do
    local key, units = P .. 'holds:' .. need.gate, share(gate_of(need.gate, t), need.weight)
    call('HSET', key, (fine and '' or '~') .. entering[n], units)
    if fine then
      call('HDEL', key, '~' .. entering[n])
    end
  end
  if needs and fine then
    back[#back + 1] = entering[n]
  end
end
if #leaving > 0 then
  ring('work')
end
return back

-- Of put.lua: jobs that have nothing beyond a place in their line are stored here, before the functions are made that only
-- others need, which takes longer than all of this.
local ids, runs, extras = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local marks, docs = cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5])
local texts = 6 -- arguments in front of them

-- Whether all jobs are new, each comes once, and none has more than its short text.
local function all_plain()
  if #ids == 0 or #extras + #marks + #docs > 0 then
    return false
  end
  local met = {}
  for first = 1, #ids, CHUNK do
    for n, known in ipairs(call('ZMSCORE', ALL, unpack(ids, first, min(first + CHUNK - 1, #ids)))) do
      local id = ids[first + n - 1]
      if known or met[id] or #ARGV[texts + first + n - 1] > INLINE then
        return false
      end
      met[id] = true
    end
  end
  return true
end

if all_plain() then
  local t, at = now(), 0
  local moment = format('%.0f', t)
  for n = 1, #runs, 3 do
    local count, line, priority = runs[n], runs[n + 1], runs[n + 2]
    local head, place = pack(0, t, t, t, nil, priority, line, nil, nil), order(priority, t)
    local jobs, all, ready = {}, {}, {}
    for one = 1, count do
      local id = ids[at + one]
      jobs[2 * one - 1], jobs[2 * one] = id, head .. ARGV[texts + at + one]
      all[2 * one - 1], all[2 * one] = moment, id
      ready[2 * one - 1], ready[2 * one] = '0', place .. id
    end
    send('HSET', JOBS, jobs, 2 * count)
    send('ZADD', ALL, all, 2 * count)
    send('ZADD', P .. 'l:' .. line, ready, 2 * count)
    call('SADD', LINES, line)
    at = at + count
  end
  ring('work')
  return {string.rep('Q', #ids), {}}
end

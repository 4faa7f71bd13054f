#!lua flags=allow-oom
-- Have jobs that do not run stand elsewhere. ARGV: (id, was, now) of each, both (queue, priority, ahead, gates, whether the
-- options stay, options); the ids of those that stood as they were. A job behind gates leaves its place, then comes anew; its
-- rank it keeps.

-- The args and options of a job as they are stored.
local function inner(job)
  if has(job.flags, 16) then
    return call('HGET', BIG, job.id) or ''
  end
  local record = call('HGET', JOBS, job.id)
  local fine, at = pcall(unpack_limit, record, 9)
  return fine and sub(record, at + 1) or ''
end

local function stands(job, was)
  local queue, priority, ahead, gated, kept, options = unpack(was, 1, 6)
  local same = has(job.flags, 64) and call('HGET', GATES, job.id) or false
  if string.match(job.line, '^[^/]*') ~= queue or job.priority ~= priority or turns_of(job) ~= ahead or same ~= gated then
    return false
  end
  if kept then
    return true
  end
  local text = inner(job)
  local _, last = extent(text, 1)
  local first
  first, last = extent(text, last + 1)
  return (first <= last and sub(text, first, last)) == options
end

-- Free what a job has kept of gates that it asks for no more.
local function give_up(job, gated)
  local keeps = {}
  for _, need in ipairs((gates_of(job.id, job.line, gated or ''))) do
    keeps[need.gate] = need.keep
  end
  for _, need in ipairs((gates_of(job.id, job.stood))) do
    if need.keep and not keeps[need.gate] then
      later('HDEL', P .. 'holds:' .. need.gate, job.id)
      free_gate(need.gate)
    end
  end
end

local function set_gates(job, gated)
  job.flags = job.flags - (has(job.flags, 64) and 64 or 0) + (gated and 64 or 0)
  job.gated = gated or nil
  if gated then
    later('HSET', GATES, job.id, gated)
  else
    later('HDEL', GATES, job.id)
  end
end

local function amend(job, was, now)
  local queue, priority, ahead, gated, kept, options = unpack(now, 1, 6)
  if not numbers((read(call('HGET', JOBS, job.id), 1))) or not stands(job, was) then
    return false
  end
  local line = queue .. '/' .. (string.match(job.line, '/(.*)$') or '')
  if line == job.line and priority == job.priority and ahead == was[3] and was[4] == gated and kept then
    return true
  end
  local scheduled = step_away(job)
  if not scheduled and has(job.flags, 64) then
    left(job.id, job.stood, false)
  end
  if has(job.flags, 64) then
    give_up(job, gated)
  end
  job.line, job.priority, job.rank = line, priority, job.rank + was[3] - ahead
  job.stood = job.lost > 0 and line .. '!' or line
  set_ahead(job, ahead)
  set_gates(job, gated)
  if scheduled then
    later('ZADD', DUE, job.run_at, job.id)
    count_planned(line, 1)
  else
    ready(job)
  end
  return rewrite(job, kept, options)
end

local done, seen = {}, {}
for _, one in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, was, now = unpack(one, 1, 3)
  local job = not seen[id] and load(id)
  seen[id] = true
  if job and job.state == 'i' and amend(job, was, now) then
    done[#done + 1] = id
  end
end
flush()
if #done > 0 then
  ring('work')
end
return done

#!lua flags=allow-oom
-- Have jobs that do not run stand elsewhere. ARGV: (id, was, now) of each, both (queue, priority, ahead, gates, whether the
-- options stay, options); the ids of those that stood as they were. A job behind gates leaves its place, then comes anew; its
-- rank it keeps.

-- Where the bytes begin and end that stand from a place on, which this MessagePack cannot read; nil holds none.
local function extent(text, from)
  local kind, a, b, c, d = byte(text, from, from + 4)
  if kind == 196 then
    return from + 2, from + 1 + a
  elseif kind == 197 then
    return from + 3, from + 2 + 256 * a + b
  elseif kind == 198 then
    return from + 5, from + 4 + 16777216 * a + 65536 * b + 256 * c + d
  end
  return from + 1, from
end

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

-- The text of a job with another head, and with other options (false: none) unless they stay.
local function rewrite(job, kept, options)
  local record = call('HGET', JOBS, job.id)
  local fine, at, flags, enqueued, run_at, rank, expires, priority, line, unique, tags = pcall(unpack_limit, record, 9)
  if not (fine and numbers(flags, enqueued, run_at, rank, priority) and type(line) == 'string') then
    return false -- nobody of ours wrote it
  end
  local rest = has(flags, 16) and call('HGET', BIG, job.id) or sub(record, at + 1)
  if not kept then
    local _, last = extent(rest, 1)
    rest = sub(rest, 1, last) .. (options and binary(options) or pack(nil))
    job.flags = job.flags - (has(job.flags, 16) and 16 or 0) + (#rest > INLINE and 16 or 0)
    if #rest <= INLINE then
      later('HDEL', BIG, job.id)
    end
  end
  local head = pack(job.flags - (has(job.flags, 8) and 8 or 0), enqueued, run_at, job.rank, expires, job.priority, job.line,
    unique, tags)
  later('HSET', JOBS, job.id, keep(job.id, head, rest))
  job.first_rank = job.rank
  if call('HEXISTS', NEWS, job.id) == 1 then
    save(job)
  end
  return true
end

-- What tells of how far a job stands ahead, and of its turns; nothing for one that does neither.
local function set_ahead(job, ahead)
  local _, key, spacing, weight = read(has(job.flags, 256) and call('HGET', TURNS, job.id), 4)
  job.flags = job.flags - (has(job.flags, 256) and 256 or 0)
  if ahead ~= 0 or key then
    job.flags, job.turns = job.flags + 256, {ahead, key, spacing}
    later('HSET', TURNS, job.id, pack(ahead, key, spacing or 0, weight or 0))
  else
    job.turns = {0}
    later('HDEL', TURNS, job.id)
  end
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

#!lua flags=allow-oom
-- Have jobs that do not run stand elsewhere. ARGV: (id, queue, priority, ahead, gates, whether the options stay, options) of
-- each; the ids of those that were. A job behind gates leaves its place, then comes anew; its rank it keeps.

-- The args in front of options: bytes, which this MessagePack cannot read.
local function args_of(rest)
  local kind, a, b, c, d = byte(rest, 1, 5)
  local length = kind == 196 and 2 + a or kind == 197 and 3 + 256 * a + b or 5 + 16777216 * a + 65536 * b + 256 * c + d
  return sub(rest, 1, length)
end

-- The text of a job with another head, and other options where it gets some.
local function rewrite(job, options)
  local record = call('HGET', JOBS, job.id)
  local fine, at, flags, enqueued, run_at, rank, expires, priority, line, unique, tags = pcall(unpack_limit, record, 9)
  if not (fine and numbers(flags, enqueued, run_at, rank, priority) and type(line) == 'string') then
    return false -- nobody of ours wrote it
  end
  local rest = has(flags, 16) and call('HGET', BIG, job.id) or sub(record, at + 1)
  if options ~= nil then
    rest = args_of(rest) .. (options and binary(options) or pack(nil))
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

local function set_gates(job, gated)
  job.flags = job.flags - (has(job.flags, 64) and 64 or 0) + (gated and 64 or 0)
  job.gated = gated or nil
  if gated then
    later('HSET', GATES, job.id, gated)
  else
    later('HDEL', GATES, job.id)
  end
end

local function amend(job, queue, priority, ahead, gated, options)
  if not numbers((read(call('HGET', JOBS, job.id), 1))) then
    return false
  end
  local had, line = turns_of(job), queue .. '/' .. (string.match(job.line, '/(.*)$') or '')
  local same = has(job.flags, 64) and call('HGET', GATES, job.id) or false
  if line == job.line and priority == job.priority and ahead == had and same == gated and options == nil then
    return true
  end
  local scheduled = step_away(job)
  if not scheduled and has(job.flags, 64) then
    left(job.id, job.stood, false)
  end
  job.line, job.priority, job.rank = line, priority, job.rank + had - ahead
  job.stood = job.lost > 0 and line .. '!' or line
  set_ahead(job, ahead)
  set_gates(job, gated)
  if scheduled then
    later('ZADD', DUE, job.run_at, job.id)
    count_planned(line, 1)
  else
    ready(job)
  end
  return rewrite(job, options)
end

local done, seen = {}, {}
for _, one in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, queue, priority, ahead, gated, kept, options = unpack(one, 1, 7)
  local job = not seen[id] and load(id)
  seen[id] = true
  if kept then
    options = nil
  else
    options = options or false
  end
  if job and job.state == 'i' and amend(job, queue, priority, ahead, gated, options) then
    done[#done + 1] = id
  end
end
flush()
if #done > 0 then
  ring('work')
end
return done

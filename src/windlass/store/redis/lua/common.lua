-- What most scripts share: records, buffered writes, marks.

-- Writes are collected and sent as few commands with many arguments.
local buffers, pending, counts = {}, {}, {}
local touched, waited = {}, {} -- lines to which a ready job, or one that waits, came, or from which it went

local function later(command, key, a, b)
  local lists = buffers[command]
  if not lists then
    lists = {}
    buffers[command] = lists
  end
  local list = lists[key]
  if not list then
    list = {n = 0}
    lists[key] = list
    pending[#pending + 1] = {command, key, list}
  end
  local n = list.n + 1
  list[n] = a
  if b ~= nil then
    n = n + 1
    list[n] = b
  end
  list.n = n
end

local function flush()
  for _, entry in ipairs(pending) do
    send(entry[1], entry[2], entry[3], entry[3].n)
  end
  for line in pairs(touched) do
    call(call('EXISTS', P .. 'l:' .. line) == 1 and 'SADD' or 'SREM', LINES, line)
  end
  for line in pairs(waited) do
    call(call('EXISTS', P .. 'x:' .. line) == 1 and 'SADD' or 'SREM', WAITS, line)
  end
  for line, change in pairs(counts) do
    if change ~= 0 and call('HINCRBY', P .. 'planned', line, change) <= 0 then
      call('HDEL', P .. 'planned', line)
    end
  end
  buffers, pending, counts, touched, waited = {}, {}, {}, {}, {}
end

-- The values of many fields of a hash, in order; false where there is none.
local function hmget(key, ids)
  if #ids <= CHUNK then
    return #ids > 0 and call('HMGET', key, unpack(ids)) or {}
  end
  local found = {}
  for first = 1, #ids, CHUNK do
    local last = min(first + CHUNK - 1, #ids)
    for n, value in ipairs(call('HMGET', key, unpack(ids, first, last))) do
      found[first + n - 1] = value
    end
  end
  return found
end

-- Whether a comes before b by their bytes. Lua's own < goes by the locale of the server.
local function before(a, b)
  local n = min(#a, #b)
  for at = 1, n do
    local x, y = byte(a, at), byte(b, at)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local function has(flags, bit)
  return flags % (2 * bit) >= bit
end

-- The flags in front of a record of `jobs`.
local function flags_of(text)
  local first, second, third = byte(text, 1, 3)
  if first == 204 then
    return second or 0
  elseif first == 205 then
    return 256 * (second or 0) + (third or 0)
  end
  return first or 0
end

-- The whole text of a job, of which `jobs` has the head if it is big.
local function whole(id, text)
  return has(flags_of(text), 16) and text .. (call('HGET', BIG, id) or '') or text
end

-- The class of errors by which a failed job is looked up, out of the end of an attempt as JSON; nil for none.
local function class_of(failure)
  local name = type(failure) == 'string' and string.match(failure, '^{"type":"([^"\\]+)"')
  if not name then
    return nil
  end
  local _, inner = string.gsub(name, '[\128-\191]', '')
  return #name - inner <= NAMED and name or nil
end

-- That of a job that failed, whose last attempt is the last in its list.
local function error_of(id)
  local fine, _, _, _, _, _, _, failure = pcall(cmsgpack.unpack, call('LINDEX', P .. 'a:' .. id, -1) or '')
  return fine and class_of(failure) or nil
end

-- A job that was over in this state leaves the index of errors.
local function forget_error(id, state)
  local error = state == 'f' and error_of(id)
  if error then
    later('ZREM', P .. 'error:' .. error, id)
  end
end

local function numbers(...)
  for n = 1, select('#', ...) do
    if type(select(n, ...)) ~= 'number' then
      return false
    end
  end
  return true
end

-- The first values of a record, at most nine; none of one that nobody of ours wrote, or that is not there.
local function read(record, count)
  local fine, at, a, b, c, d, e, f, g, h, i = pcall(unpack_limit, record or '', count)
  if fine and at then
    return a, b, c, d, e, f, g, h, i
  end
end

-- A job as a table; nil if there is none. `raw` is what `news` has of it (false: nothing) and `text` what `jobs` has,
-- if that was read already.
local function load(id, raw, text)
  text = text or call('HGET', JOBS, id)
  if not text then
    return nil
  end
  local job = {id = id, state = 'i', fence = 0, attempt = 0, lost = 0}
  local flags, enqueued, run_at, rank, expires, priority, line = read(text, 7)
  if not (numbers(flags, enqueued, run_at, rank, priority) and type(line) == 'string') then
    flags, enqueued, run_at, rank, expires, priority, line = 0, 0, 0, 0, nil, 0, '/' -- nobody of ours wrote it
  end
  job.flags = flags
  if raw == nil then
    raw = call('HGET', NEWS, id)
  end
  if raw then
    local fine, state, fence, seq, runner, bits, attempt, lost, started, finished, ending, cancelling, due, reason, result,
      progress, renewed, place = pcall(cmsgpack.unpack, raw)
    if fine and type(state) == 'string' and numbers(fence, bits, attempt, lost) then -- else it counts as nothing
      job.state, job.fence, job.seq, job.runner, job.flags, job.attempt, job.lost = state, fence, seq, runner, bits, attempt,
        lost
      job.started, job.finished, job.ending, job.cancelling, job.due = started, finished, ending, cancelling, due
      job.reason, job.result, job.progress, job.renewed, job.rank = reason, result, progress, renewed, place
    end
  end
  job.enqueued, job.expires, job.priority, job.line = enqueued, expires, priority, line
  job.run_at, job.first_rank, job.rank = job.due or run_at, rank, tonumber(job.rank) or job.due or rank
  job.stood = job.lost > 0 and line .. '!' or line
  return job
end

local function save(job)
  local rank = job.rank ~= (job.due or job.first_rank) and job.rank or nil
  later('HSET', NEWS, job.id, pack(job.state, job.fence, job.seq, job.runner, job.flags, job.attempt, job.lost,
    job.started, job.finished, job.ending, job.cancelling, job.due, job.reason, job.result, job.progress, job.renewed,
    rank))
end

local function unique_and_tags(id)
  local _, _, _, _, _, _, _, unique, tags = read(call('HGET', JOBS, id), 9)
  return unique, tags
end

local function line_of(job)
  return job.lost > 0 and job.line .. '!' or job.line
end

-- One letter for the state of a job that is idle: d scheduled, w waiting, q ready.
local function idle(job)
  if call('ZSCORE', DUE, job.id) then
    return 'd'
  end
  local waits = has(job.flags, 64) and call('ZSCORE', P .. 'x:' .. line_of(job), order(job.priority, job.rank) .. job.id)
  return waits and 'w' or 'q'
end

-- The same of a job that exists; others as in `news`.
local function state_of(id, raw)
  local state = read(raw or call('HGET', NEWS, id), 1)
  if type(state) == 'string' and state ~= 'i' then
    return state
  end
  local job = load(id)
  return job and idle(job) or 'q'
end

-- Marks: m:<key> is the job that holds the key, and until when if the mark fades by itself.
local function holder_of(key, t)
  local value = call('GET', P .. 'm:' .. key)
  if not value then
    return nil
  end
  local job, limit = string.match(value, '^(%S+) ?(%S*)$')
  if limit ~= '' and tonumber(limit) <= t then
    return nil
  end
  return job, limit
end

-- Give a key to a job, for as long as that lives or until a moment.
local function give(key, id, limit)
  if limit then
    call('SET', P .. 'm:' .. key, id .. ' ' .. format('%.0f', limit))
    call('ZADD', P .. 'fading', limit, key)
  else
    call('SET', P .. 'm:' .. key, id)
    call('ZREM', P .. 'fading', key)
  end
end

-- Take a key for a job unless it is held; who holds it now, and whether it was taken before.
local function take(key, id, limit, t)
  local holder = holder_of(key, t)
  if holder then
    return holder, true
  end
  give(key, id, limit)
  return id, false
end

-- Free the unique key of a job that is over or gone, or has no use for it any more.
local function free(id)
  local unique = unique_and_tags(id)
  if unique and call('GET', P .. 'm:' .. unique) == id then
    call('DEL', P .. 'm:' .. unique)
  end
end

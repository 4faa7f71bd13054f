-- Keys, and what the shortest script needs. KEYS[1] is the app's prefix; every key begins with it.
--
-- A job is two texts of MessagePack values, in two hashes by id. `jobs` has what was put:
--   flags, enqueued, run_at, rank, expires, priority, line, unique, tags, args, options
-- `news` has what became of it, once anything did:
--   state, fence, seq, runner, flags, attempt, lost, started, finished, ending, cancelling, due, reason, result,
--   progress, renewed, rank
-- States: i idle (scheduled if it is in `due`, waiting if it is in `x:<line>`, else ready), r running, s succeeded, f failed,
-- c cancelled.
-- Flags: 1 has a unique key, 2 has tags, 4 expires, 8 has attempts (in `news`), 16 its args and options are in `big`,
-- 32 jobs follow it: they are in `follow`, as windlass/follow.py writes them, 64 it passes gates: what it takes of them is
-- in `gates`, as windlass/gate.py writes it, 128 its first claim frees its key, 256 it stands ahead of others or takes
-- turns: `turns` has (ahead, key, microseconds from one turn to the next, weight).
local P = KEYS[1]
local call, pack, unpack_limit = redis.call, cmsgpack.pack, cmsgpack.unpack_limit
local sub, byte, format, floor, min, max = string.sub, string.byte, string.format, math.floor, math.min, math.max
local JOBS, NEWS, BIG, ALL, DUE = P .. 'jobs', P .. 'news', P .. 'big', P .. 'all', P .. 'due'
local EXPIRING, LINES, FOLLOW = P .. 'expiring', P .. 'lines', P .. 'follow'
local GATES, WAITS, STIRRED, FREED, SINCE = P .. 'gates', P .. 'waits', P .. 'stirred', P .. 'freed', P .. 'since'
local BLOCKED, BARRED, TURNS, BEHIND = P .. 'blocked', P .. 'barred', P .. 'turns', P .. 'behind'
local CHUNK = 4000 -- arguments of one command; Lua's stack holds 8000
local INLINE = 512 -- bytes of args and options up to which they stand in `jobs`: scripts read many of those at once

local function send(command, key, list, count)
  for first = 1, count, CHUNK do
    call(command, key, unpack(list, first, min(first + CHUNK - 1, count)))
  end
end

-- Sharded, so that a cluster does not carry it to nodes where nobody listens.
local function ring(topic)
  call('SPUBLISH', P .. topic, '')
end

-- A ready job is a member of its line, all scores 0, in the order of claiming: priority, rank, id.
local ORDER = 21 -- characters in front of the id

local latest = {} -- many come one after another with the very same place
local function order(priority, rank)
  if latest.priority ~= priority or latest.rank ~= rank then
    latest = {priority = priority, rank = rank, text = format('%03d%018.0f', 100 - priority, max(0, rank))}
  end
  return latest.text
end

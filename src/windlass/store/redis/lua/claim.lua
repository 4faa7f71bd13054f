-- Which ready jobs a demand takes: the heads of its lines, merged, each read no deeper than it must be.
local FIRST_READ = 8 -- heads read of a line at first when it is one of several; four times as many each time after

-- The lane with free slots that runs a line's jobs: maps of task to lane, for plain jobs and for suspects.
local function lanes_by_task(lanes)
  local plain, suspects, free = {}, {}, {}
  for at, lane in ipairs(lanes) do
    free[at] = lane[1]
    if lane[1] > 0 then
      for _, task in ipairs(lane[2]) do
        plain[task] = plain[task] or at
      end
      for _, task in ipairs(lane[3]) do
        suspects[task] = suspects[task] or at
      end
    end
  end
  return plain, suspects, free
end

-- The lines that a demand serves as streams of heads, by queue ('' for all of them if there are no quotas).
local function streams_of(demand, plain, suspects)
  local served = {}
  for _, line in ipairs(call('SMEMBERS', LINES)) do
    local queue, task, mark = string.match(line, '^([^/]*)/([^!]*)(!?)$')
    local lane = (mark == '!' and suspects or plain)[task]
    if lane then
      queue = demand[3] and queue or ''
      served[queue] = served[queue] or {}
      table.insert(served[queue], {line = line, key = P .. 'l:' .. line, lane = lane, at = 0, heads = {}, depth = 0})
    end
  end
  return served
end

local function read_on(stream, first)
  local count = stream.depth == 0 and first or stream.depth * 3
  local heads = call('ZRANGE', stream.key, stream.depth, stream.depth + count - 1)
  stream.depth = stream.depth + count
  stream.heads, stream.at, stream.over = heads, 1, #heads < count
end

-- The head of a stream; nil when it is used up, or its lane is full.
local function peek(stream, free, first)
  if free[stream.lane] <= 0 then
    return nil
  end
  local head = stream.heads[stream.at]
  if not head and not stream.over then
    read_on(stream, first)
    head = stream.heads[1]
  end
  return head
end

local function comes_first(a, b)
  local x, y = sub(a, 1, ORDER), sub(b, 1, ORDER)
  if x ~= y then
    return x < y
  end
  return before(a, b)
end

local function best_of(streams, free, slots)
  if #streams == 1 then
    return peek(streams[1], free, slots), streams[1]
  end
  local best, choice = nil, nil
  for _, stream in ipairs(streams) do
    local head = peek(stream, free, FIRST_READ)
    if head and (not best or comes_first(head, best)) then
      best, choice = head, stream
    end
  end
  return best, choice
end

-- Whether a demand takes jobs of a line, as far as it has slots for them.
local function serves_of(demand)
  local plain, suspects = lanes_by_task(demand[2])
  local queues = {}
  for _, quota in ipairs(demand[3] or {}) do
    queues[quota[1]] = true
  end
  return function(line)
    local queue, task, mark = string.match(line, '^([^/]*)/([^!]*)(!?)$')
    return (not demand[3] or queues[queue]) and (mark == '!' and suspects or plain)[task] ~= nil
  end
end

-- The jobs that a demand takes, in order; those found expired on the way; how many entries of each line that is; and the
-- member and the line of each.
local function choose(demand, t, may_be_expired)
  local plain, suspects, free = lanes_by_task(demand[2])
  local slots, quotas = min(demand[1], BATCH), demand[3]
  local taken, expired, depths, members, lines = {}, {}, {}, {}, {}
  local served = streams_of(demand, plain, suspects)

  local function take_head(head, stream)
    local id = sub(head, ORDER + 1)
    stream.at = stream.at + 1
    depths[stream.line] = (depths[stream.line] or 0) + 1
    local limit = may_be_expired and call('ZSCORE', EXPIRING, id)
    if limit and tonumber(limit) <= t then
      expired[#expired + 1] = id
      return 0
    end
    free[stream.lane] = free[stream.lane] - 1
    local n = #taken + 1
    taken[n], members[n], lines[n] = id, head, stream.line
    return 1
  end

  local function draw(streams, most)
    most = min(most, slots - #taken)
    while most > 0 and #expired < BATCH do
      local head, stream = best_of(streams, free, slots)
      if not head then
        return
      end
      most = most - take_head(head, stream)
    end
  end

  if not quotas then
    draw(served[''] or {}, slots)
    return taken, expired, depths, members, lines
  end
  for _, quota in ipairs(quotas) do
    draw(served[quota[1]] or {}, quota[2])
  end
  for _, quota in ipairs(quotas) do
    draw(served[quota[1]] or {}, slots)
  end
  return taken, expired, depths, members, lines
end

-- Documents: d:<kind> is a hash of name to "version due body", dn:<kind> a sorted set of all names (score 0), dd:<kind>
-- one of those that have a due time.
local DOC = 4 -- values of one document: kind, name, version, due (false: none; true: drop the document)

-- What a conflict answers, or nil. A document that an earlier try of this very call has written or dropped is none.
local function check_docs(docs, texts, repeated)
  local versions = {}
  for n = 1, #docs / DOC do
    local at = (n - 1) * DOC
    local kind, name, version, due = docs[at + 1], docs[at + 2], docs[at + 3], docs[at + 4]
    local id = kind .. '\n' .. name
    local value = call('HGET', P .. 'd:' .. kind, name)
    local stored = versions[id] or (value and tonumber(string.match(value, '^%d+'))) or 0
    local written
    if repeated and due == true then
      written = not value
    elseif repeated and value and (version == 0 or stored == version + 1) then
      written = string.match(value, '^%S+ %S+ (.*)$') == ARGV[texts + n]
    end
    if stored ~= version and not written then
      return {'conflict', kind, name, stored, version}
    end
    if due == true then
      versions[id] = 0
    else
      versions[id] = version == 0 and -1 or version + 1 -- that of a new one nobody knows yet
    end
  end
end

-- Look again at the gates of which a document tells that is written.
local function call_for(kind, name)
  if kind == 'gate' then
    ring('work')
  end
  if kind == 'pace' or (kind == 'gate' and string.find(name, '/', 1, true)) then
    call('ZADD', FREED, 0, name)
  elseif kind == 'gate' then
    for _, range in ipairs({{'[' .. name, '[' .. name}, {'[' .. name .. '/', '(' .. name .. '0'}}) do
      for _, gate in ipairs(call('ZRANGE', BARRED, range[1], range[2], 'BYLEX')) do
        call('ZADD', FREED, 0, gate)
      end
    end
  end
end

local function drop_doc(kind, name)
  call('HDEL', P .. 'd:' .. kind, name)
  call('ZREM', P .. 'dn:' .. kind, name)
  call('ZREM', P .. 'dd:' .. kind, name)
end

-- Versions of a document count from the moment that it was made, so that none comes twice.
local function save_docs(docs, texts, moment)
  for n = 1, #docs / DOC do
    local at = (n - 1) * DOC
    local kind, name, version, due = docs[at + 1], docs[at + 2], docs[at + 3], docs[at + 4]
    call_for(kind, name)
    if due == true then
      drop_doc(kind, name)
    else
      local following = version == 0 and moment or version + 1
      local when = due and format('%.0f', due) or '-'
      call('ZADD', P .. 'dn:' .. kind, 0, name)
      call('HSET', P .. 'd:' .. kind, name, format('%.0f', following) .. ' ' .. when .. ' ' .. ARGV[texts + n])
      if due then
        call('ZADD', P .. 'dd:' .. kind, due, name)
      else
        call('ZREM', P .. 'dd:' .. kind, name)
      end
    end
  end
end

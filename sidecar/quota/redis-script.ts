/**
 * What Redis or Valkey does with shared counters, each script in one step: nothing can come between.
 *
 * The arithmetic is that of policies/counter.ts and policies/quota.ts by the server's own clock. A counter is a hash: its
 * latest slot, day or month (`slot`), what counts in all (`total`), the last slot with something in it (`last`), and what
 * lies in each slot under the slot's number. A lease counts in the slot in which it ends, which may lie ahead. A key goes
 * when the last of it has left the window.
 *
 * A clock that is set back mints nothing: a counter only moves forward. What is given back is never more than what is
 * there, so that a server that has lost its data does not hand out what it does not know.
 *
 * All keys of one call are named beforehand and share a hash tag, as Redis Cluster wants it.
 */
import { createHash } from 'node:crypto';

export interface Script {
  readonly text: string;
  /** By which Redis knows it (EVALSHA). */
  readonly sha1: string;
}

/** Milliseconds since the epoch. */
export const CLOCK = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** Months since the epoch by the civil calendar, and back: a year is taken to begin in March, so that its end varies. */
export const CALENDAR = `
local DAY = 86400000
local floor = math.floor
local function monthAt(at)
  local z = floor(at / DAY) + 719468
  local era = floor(z / 146097)
  local day = z - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  local month = floor((5 * (day - 365 * year - floor(year / 4) + floor(year / 100)) + 2) / 153)
  return (year + era * 400 - 1970) * 12 + month + 2
end
local function monthStart(number)
  local months = number - 2
  local year = 1970 + floor(months / 12)
  local month = months % 12
  local era = floor(year / 400)
  local rest = year - era * 400
  return (era * 146097 + rest * 365 + floor(rest / 4) - floor(rest / 100) + floor((153 * month + 2) / 5) - 719468) * DAY
end
`;

/** `window`: the length of a sliding one in milliseconds, or `day`, or `month`. */
const COUNTER = `
local function slotAt(at, window)
  if window == 'day' then return floor(at / DAY) end
  if window == 'month' then return monthAt(at) end
  return floor(at * 60 / window)
end
local function expiryOf(slot, window)
  if window == 'day' then return (slot + 1) * DAY end
  if window == 'month' then return monthStart(slot + 1) end
  return math.ceil((slot + 61) * window / 60)
end
local function isCalendar(window) return window == 'day' or window == 'month' end
-- The oldest slot that still counts.
local function oldestOf(slot, window)
  if isCalendar(window) then return slot end
  return slot - 60
end
local function amountsIn(key, from, to)
  local slots = {}
  for slot = from, to do slots[#slots + 1] = slot end
  if #slots == 0 then return slots, {} end
  return slots, redis.call('HMGET', key, unpack(slots))
end
-- As it is now; nothing is written before the verdict.
local function load(key, window)
  local head = redis.call('HMGET', key, 'slot', 'total', 'last')
  local counter = { key = key, window = window, slot = slotAt(now, window), total = 0, exists = false, gone = {} }
  if not head[1] then return counter end
  local slot, last = tonumber(head[1]), tonumber(head[3])
  counter.slot = math.max(slot, counter.slot)
  local oldest = oldestOf(counter.slot, window)
  if last < oldest then
    counter.isStale = true
    return counter
  end
  counter.exists, counter.total, counter.last = true, tonumber(head[2]), last
  local slots, amounts = amountsIn(key, oldestOf(slot, window), oldest - 1)
  for index, amount in ipairs(amounts) do
    if amount then
      counter.total = counter.total - amount
      counter.gone[#counter.gone + 1] = slots[index]
    end
  end
  return counter
end
-- Whether it lasts longer by it is what write tells.
local function write(counter, added)
  local key = counter.key
  if counter.isStale then redis.call('DEL', key)
  elseif #counter.gone > 0 then redis.call('HDEL', key, unpack(counter.gone)) end
  local last = counter.last or counter.slot
  for _, one in ipairs(added) do
    last = math.max(last, one.slot)
    counter.total = counter.total + one.amount
    if one.amount ~= 0 then redis.call('HINCRBY', key, one.slot, one.amount) end
  end
  redis.call('HSET', key, 'slot', counter.slot, 'total', counter.total, 'last', last)
  if last == counter.last then return nil end
  local expiry = expiryOf(last, counter.window)
  redis.call('PEXPIREAT', key, expiry)
  return expiry
end
`;

/**
 * KEYS: the agent's own keys; then for each charge its counter, and the counter of the agent's surplus: the same once more
 * for a key that no agent chooses, which takes none of the agent's room and never goes to a surplus.
 * ARGV: how many keys an agent may have; then for each charge: window, limit, cost, want (at least the cost: what goes
 * beyond is a lease), and how many milliseconds the lease is to last.
 *
 * Returns 1, now, and for each charge: total, slot, whether it is the surplus, the lease, its slot, how long it lasts.
 * Or 0, now, the number of the charge that has to be waited for longest, and how long.
 */
const RESERVE_BODY = `
local members, count, hasRoom = KEYS[1], (#KEYS - 1) / 2, nil
local function isRoom()
  if hasRoom ~= nil then return hasRoom end
  local max = tonumber(ARGV[1])
  hasRoom = redis.call('ZCARD', members) + count <= max
  if not hasRoom then
    redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
    hasRoom = redis.call('ZCARD', members) + count <= max
  end
  return hasRoom
end
local function choose(key, surplusKey, window)
  local counter = load(key, window)
  counter.isChosen = key ~= surplusKey
  if counter.exists or not counter.isChosen then return counter end
  local surplus = load(surplusKey, window)
  if surplus.total == 0 and isRoom() then return counter end
  surplus.isSurplus = true
  return surplus
end
local function waitFor(counter, cost, limit)
  local excess = counter.total + cost - limit
  if excess <= 0 then return 0 end
  local slots, amounts = amountsIn(counter.key, oldestOf(counter.slot, counter.window), counter.last)
  local slot = counter.slot
  for index, amount in ipairs(amounts) do
    slot = slots[index]
    excess = excess - (amount or 0)
    if excess <= 0 then break end
  end
  return expiryOf(slot, counter.window) - now
end

local counters, worst, longest = {}, 0, 0
for index = 1, count do
  local at = 5 * index - 3
  counters[index] = choose(KEYS[2 * index], KEYS[2 * index + 1], ARGV[at])
  local wait = waitFor(counters[index], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 1]))
  if wait > longest then worst, longest = index, wait end
end
if worst > 0 then return { 0, now, worst, longest } end

local reply = { 1, now }
for index, counter in ipairs(counters) do
  local at = 5 * index - 3
  local window, limit, cost = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local lease, leaseSlot, lasts = 0, counter.slot, tonumber(ARGV[at + 4])
  if not counter.isSurplus then lease = math.min(ARGV[at + 3] - cost, limit - counter.total - cost) end
  if isCalendar(window) then lasts = math.min(lasts, expiryOf(counter.slot, window) - now)
  else leaseSlot = math.max(counter.slot, slotAt(now + lasts, window)) end
  local added = { { slot = counter.slot, amount = cost } }
  if lease > 0 then added[2] = { slot = leaseSlot, amount = lease } end
  local expiry = write(counter, added)
  if expiry and counter.isChosen then
    redis.call('ZADD', members, expiry, counter.key)
    redis.call('PEXPIREAT', members, redis.call('ZRANGE', members, -1, -1, 'WITHSCORES')[2])
  end
  for _, value in ipairs({ counter.total, counter.slot, counter.isSurplus and 1 or 0, lease, leaseSlot, lasts }) do
    reply[#reply + 1] = value
  end
end
return reply
`;

/**
 * KEYS: counters. ARGV: for each its window, how many changes, and for each change its slot and amount. What is charged to
 * a slot that has left the window is charged now; what is given back there is nobody's any more.
 *
 * Returns the total of each.
 */
const CHANGE_BODY = `
local reply, at = {}, 1
for index, key in ipairs(KEYS) do
  local counter = load(key, ARGV[at])
  local changes, added = tonumber(ARGV[at + 1]), {}
  local oldest = oldestOf(counter.slot, ARGV[at])
  for change = 1, changes do
    local slot, amount = tonumber(ARGV[at + 2 * change]), tonumber(ARGV[at + 2 * change + 1])
    if amount > 0 then added[#added + 1] = { slot = slot < oldest and counter.slot or slot, amount = amount }
    elseif counter.exists and slot >= oldest then
      local there = tonumber(redis.call('HGET', key, slot) or 0)
      if there > 0 then added[#added + 1] = { slot = slot, amount = -math.min(there, -amount) } end
    end
  end
  if #added > 0 then write(counter, added) end
  reply[index] = counter.total
  at = at + 2 + 2 * changes
end
return reply
`;

function scriptOf(body: string): Script {
  const text = `${CLOCK}${CALENDAR}${COUNTER}${body}`;
  return { text, sha1: createHash('sha1').update(text).digest('hex') };
}

export const RESERVE = scriptOf(RESERVE_BODY);
export const CHANGE = scriptOf(CHANGE_BODY);

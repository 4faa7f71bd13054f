// BullMQ: jobs are removed when they end. `worker` in the place of a client's line runs jobs; else as benchmarks/drive.py.
const fs = require("node:fs");
const { performance } = require("node:perf_hooks");
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const [RATE, BATCH, WARM_UP] = [20, 1000, 10];
const connection = new Redis(process.env.STORE, { maxRetriesPerRequest: null });
const [verb, first, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const now = () => (performance.timeOrigin + performance.now()) / 1000;

async function put() {
  const queue = new Queue("rivals", { connection, defaultJobOptions: { removeOnComplete: true } });
  const one = (n) => queue.add("work", { n });
  const sent = [];
  if (verb === "paced") {
    for (let n = first; n < first + count; n++) {
      sent.push(now());
      await one(n);
      await new Promise((done) => setTimeout(done, 1000 / RATE));
    }
    return sent;
  }
  let n = first;
  for (; n < first + WARM_UP; n++) await one(n);
  const [began, timed] = [now(), first + count - n];
  if (verb === "one") for (; n < first + count; n++) await one(n);
  if (verb === "many")
    for (; n < first + count; n += BATCH) {
      const size = Math.min(BATCH, first + count - n);
      await queue.addBulk(Array.from({ length: size }, (_, i) => ({ name: "work", data: { n: n + i } })));
    }
  return timed / (now() - began);
}

if (verb === "worker") {
  const marks = fs.openSync(process.env.MARKS, "r+");
  const slot = Buffer.alloc(8);
  const job = async ({ data }) => {
    slot.writeDoubleLE(now());
    fs.writeSync(marks, slot, 0, 8, 8 * data.n);
  };
  const worker = new Worker("rivals", job, { connection, concurrency: 100 });
  process.on("SIGTERM", () => worker.close().then(() => process.exit(0)));
} else if (verb !== "prepare") {
  put().then((found) => {
    console.log(JSON.stringify(found));
    process.exit(0);
  });
} else {
  process.exit(0);
}

# Sidekiq: a client's line as in benchmarks/drive.py; the worker requires this file.
require "json"
require "sidekiq"

RATE, BATCH, WARM_UP = 20, 1000, 10
Sidekiq.configure_client { |config| config.redis = { url: ENV["STORE"] } }
Sidekiq.configure_server { |config| config.redis = { url: ENV["STORE"] } }
Sidekiq.logger.level = Logger::ERROR

class Work
  include Sidekiq::Worker
  MARKS = File.open(ENV["MARKS"], "r+b")

  def perform(n)
    MARKS.pwrite([Time.now.to_f].pack("d"), 8 * n)
  end
end

def put(verb, numbers)
  if verb == "paced"
    return numbers.map do |n|
      Time.now.to_f.tap do
        Work.perform_async(n)
        sleep 1.0 / RATE
      end
    end
  end
  numbers.shift(WARM_UP).each { |n| Work.perform_async(n) }
  began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  if verb == "many"
    numbers.each_slice(BATCH) { |some| Sidekiq::Client.push_bulk("class" => Work, "args" => some.map { |n| [n] }) }
  else
    numbers.each { |n| Work.perform_async(n) }
  end
  numbers.length / (Process.clock_gettime(Process::CLOCK_MONOTONIC) - began)
end

unless Sidekiq.server?
  verb, first, count = ARGV[0], ARGV[1].to_i, ARGV[2].to_i
  puts put(verb, (first...first + count).to_a).to_json unless verb == "prepare"
end

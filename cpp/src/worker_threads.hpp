// worker_threads.hpp - the threads of a pool, asleep until they are called.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "thread.hpp"

namespace offgil {

// Owns the threads. Knows nothing of jobs: its guest does. The thread that went to sleep last is called
// first: its caches are warm and its CPU is awake, and with little to do the others sleep on.
//
// Thread-safe. Only the constructor, wait_until_ended() and the destructor block.
class worker_threads {
 public:
  // Called on the threads, without any lock.
  class guest {
   public:
    virtual ~guest() = default;
    virtual void on_thread_start(unsigned index) noexcept = 0;
    virtual void on_call() noexcept = 0;
    virtual void on_thread_end() noexcept = 0;
  };

  // Starts `count` threads called <name><n>, or none: throws std::system_error when one cannot start.
  worker_threads(unsigned count, const std::string& name, int nice, guest& of);
  ~worker_threads();  // after let_end(): joins
  worker_threads(const worker_threads&) = delete;
  worker_threads& operator=(const worker_threads&) = delete;

  // One thread that is not busy, or the next one that gets free, calls guest::on_call().
  void call() noexcept;

  // The threads end once no call and no guest is under way.
  void let_end() noexcept;
  bool wait_until_ended(std::chrono::nanoseconds at_most);  // true: they have been joined
  bool have_ended() const noexcept;

 private:
  // Where one thread sleeps.
  struct bed {
    std::condition_variable called;
    bool is_called = false;
    bed* below = nullptr;
  };

  void run(unsigned index) noexcept;
  bool wait_for_call(bed& own) noexcept;
  bed* take_last_asleep() noexcept;

  guest& host_;
  std::vector<bed> beds_;  // of each thread
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  bed* last_asleep_ = nullptr;
  unsigned calls_ = 0;  // that no thread has taken yet
  unsigned live_;
  bool is_ending_ = false;
  std::condition_variable ended_;
  std::vector<std::unique_ptr<thread>> threads_;  // last: joined before anything else goes
};

}  // namespace offgil

// worker_threads.hpp - the threads of a pool, asleep until they are called.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "thread.hpp"

namespace offgil {

// Owns the threads. Knows nothing of jobs: its guest does. The thread that went to sleep last is called
// first: its caches are warm and its CPU is awake, and with little to do the others sleep on. One is started
// when a call finds none asleep.
//
// Thread-safe. Only start_first(), wait_until_ended() and the destructor block.
class worker_threads {
 public:
  // Called on the threads, without any lock; but before_thread_start() with our mutex: who has a mutex of the
  // guest's that it takes must not call us.
  class guest {
   public:
    virtual ~guest() = default;
    virtual void before_thread_start() = 0;  // on who starts it; std::bad_alloc keeps it from starting
    virtual void on_thread_start(unsigned index) noexcept = 0;
    virtual void on_call() noexcept = 0;
    virtual void on_thread_end() noexcept = 0;
    virtual void on_end() noexcept = 0;  // on the last thread, or in let_end() where there is none
  };

  // At most `count` threads, called <name><n>. `stack_size` is asked as each starts.
  worker_threads(unsigned count, std::string name, int nice, std::function<std::size_t()> stack_size,
                 guest& of);
  ~worker_threads();  // waits for let_end(), and joins
  worker_threads(const worker_threads&) = delete;
  worker_threads& operator=(const worker_threads&) = delete;

  // Starts the first thread if none has been. Throws std::system_error when it cannot start. Takes up to 5 ms
  // where many have just been started in the process.
  void start_first();
  bool has_started() const noexcept { return has_started_.load(std::memory_order_relaxed); }

  // One thread that is not busy, or the next one that gets free, calls guest::on_call(). After start_first().
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
    bool is_new = true;  // its thread has not come here yet
    bed* below = nullptr;
  };

  void start_next();
  void try_to_start_next() noexcept;
  void run(unsigned index) noexcept;
  bool wait_for_call(bed& own) noexcept;
  bed* take_last_asleep() noexcept;

  const std::string name_;
  const int nice_;
  const std::function<std::size_t()> stack_size_;
  guest& host_;
  std::vector<bed> beds_;  // of each thread
  std::atomic<bool> has_started_{false};
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  bed* last_asleep_ = nullptr;
  unsigned calls_ = 0;  // that no thread has taken yet
  unsigned new_ = 0;    // threads that have been started and will look for one
  unsigned live_ = 0;
  std::size_t made_ = 0;  // guests' preparations: one that could not start uses its own the next time
  bool is_ending_ = false;
  std::condition_variable ended_;
  std::vector<std::unique_ptr<thread>> threads_;  // last: joined before anything else goes
};

}  // namespace offgil

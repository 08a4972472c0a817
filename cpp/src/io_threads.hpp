// io_threads.hpp - the threads of a pool, inside Boost.Asio's io_context::run().
#pragma once

#include <chrono>
#include <memory>
#include <string>

namespace offgil {

// Owns the threads and the io_context that they run. Knows nothing of jobs: its guest does. Own threads
// rather than boost::asio::thread_pool, which hangs in its constructor when a thread cannot start, ends the
// process when a handler throws, and drops what was posted when it is destroyed.
//
// Thread-safe. Only the constructor, wait_until_ended() and the destructor block.
class io_threads {
 public:
  // Called on the threads, without any lock.
  class guest {
   public:
    virtual ~guest() = default;
    virtual void on_thread_start(unsigned index) noexcept = 0;
    virtual void on_call() noexcept = 0;
    virtual void on_tick() noexcept = 0;
    virtual void on_thread_end() noexcept = 0;
  };

  // Starts `count` threads called <name><n>, or none: throws std::system_error when one cannot start.
  io_threads(unsigned count, const std::string& name, int nice, guest& of);
  ~io_threads();  // after let_end(): joins
  io_threads(const io_threads&) = delete;
  io_threads& operator=(const io_threads&) = delete;

  // One thread that is not busy, or the next one that gets free, calls guest::on_call(). At most `count`
  // calls may be outstanding; that many need no memory.
  void call() noexcept;

  // One thread calls guest::on_tick() after `delay`. At most one tick may be outstanding.
  void tick_after(std::chrono::nanoseconds delay) noexcept;

  // The threads end once no call, no tick and no guest is under way. Call once.
  void let_end() noexcept;
  bool wait_until_ended(std::chrono::nanoseconds at_most);

 private:
  struct implementation;
  std::unique_ptr<implementation> implementation_;  // keeps Asio, slow to compile, out of everybody else
};

}  // namespace offgil

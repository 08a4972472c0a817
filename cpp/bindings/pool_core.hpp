// pool_core.hpp - what is behind a Pool: the engine, and its channels to event loops.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "concurrent_channel.hpp"
#include "dispatcher.hpp"
#include "exit_hook.hpp"
#include "interpreter.hpp"
#include "loop_channel.hpp"
#include "python_job.hpp"
#include "signal_mask.hpp"
#include "trace_file.hpp"
#include "worker_pool.hpp"

namespace offgil::python {

namespace py = pybind11;

// How completions reach a loop that could do either.
enum class delivery { automatic, eventfd, callback };

// A forked child has none of the threads that destruction would wait for.
struct destroy_unless_forked {
  template <class T>
  void operator()(T* owned) const noexcept {
    if (!born_in.is_over()) std::default_delete<T>()(owned);
  }
  process_generation born_in;
};
template <class T>
using unless_forked = std::unique_ptr<T, destroy_unless_forked>;

// The same for an engine, which belongs to the process in which it has started its first thread.
struct destroy_unless_left_behind {
  void operator()(worker_pool* owned) const noexcept {
    if (!owned->was_left_behind_by_fork()) std::default_delete<worker_pool>()(owned);
  }
};

// Guarded by the GIL. Lives until its Pool is gone and its channels have nothing in flight.
class pool_core final : public resident, public std::enable_shared_from_this<pool_core> {
 public:
  struct options {
    worker_pool::options engine;
    delivery by = delivery::automatic;
    future_style* style = &inline_futures();
    py::object initializer;     // called without arguments on each worker before its first job; or null
    bool has_no_owner = false;  // after close() nobody joins the threads: all end when the jobs have
  };

  // Runs no code of Python. Throws PoolClosed while Python exits. A good time for purge_all(), before.
  static std::shared_ptr<pool_core> start(options with);
  ~pool_core() override;

  // Before each job: see worker_pool::get_ready(). Throws PoolError.
  void get_ready();

  worker_pool& engine() noexcept { return *engine_; }
  const worker_pool& engine() const noexcept { return *engine_; }
  future_style& futures() noexcept { return style_; }
  python_kinds& kinds() noexcept { return python_kinds_; }
  gil_lane& lane() noexcept { return lane_; }

  // The channel of the running loop; made when it is new. Throws RuntimeError where no loop runs, and OSError
  // where no descriptor or thread can be had.
  loop_channel& channel();

  // The same, for who remembers it.
  std::shared_ptr<loop_channel> shared_channel();

  // Whether there is one already. Throws as above.
  bool has_channel() const;

  // A way for concurrent futures, of which there may be several; to be given back.
  concurrent_channel& open_concurrent_channel();

  // Who brings what nobody else does. Throws PoolClosed where nobody would stop its threads any more.
  const std::shared_ptr<dispatcher>& its_dispatcher();

  // Throws PoolBroken in a forked child; and where an initializer has failed.
  void check_not_forked() const;
  void check_usable() const;
  bool is_broken() const noexcept { return is_broken_; }

  // Whether the calling thread is one that the end of the pool has to wait for.
  bool is_on_own_thread() const noexcept;

  // Refuses new jobs. Channels with nothing in flight are detached, the others detach themselves later.
  void close() noexcept;

  // After close(), where nobody will join(): see concurrent_channel::end_by_itself().
  void end_by_itself() noexcept;

  // After close(), when the pool is idle: waits for the threads, with the GIL released. False on timeout: an
  // initializer or a callback still runs.
  bool join(std::chrono::nanoseconds at_most) noexcept;

  // For the collector, of the owner's: the initializer is often a method of who owns the pool. Null where
  // there is none, all workers have begun, or jobs are in flight that may need it.
  py::handle initializer() const noexcept;
  void drop_initializer() { const py::object dropped = std::move(initializer_); }

  // Whether Python code runs on the pool's threads that is not a job.
  bool is_initializing() const noexcept { return initializers_under_way_ != 0; }
  bool is_calling_back() const noexcept { return calls_under_way != 0; }
  unsigned calls_under_way = 0;  // of done callbacks

  // Whether join() has been called: nobody may be left to wake a loop.
  bool is_joined() const noexcept { return is_joined_; }

  // To be called when a channel has nothing in flight any more.
  void end_if_done() noexcept;

  // Forgets a channel that has been detached.
  void remove(loop_channel& channel) noexcept;

  // Drops the results of loops that are gone, and their channels; of this pool, of all pools.
  void purge() noexcept;
  static void purge_all() noexcept;

  // purge(), and from now on what comes into the mailbox of a loop that is gone is dropped as it comes.
  void drop_what_comes_for(mailbox& box) noexcept;

  // Times a thread of the pool has taken the GIL.
  std::uint64_t gil_acquisitions() const noexcept {
    return gil_acquisitions_.load(std::memory_order_relaxed);
  }
  std::uint64_t wakeups() const noexcept;
  delivery_counters counters;

  // Drains of its event loops are noted here, jobs by the engine.
  void start_trace(std::size_t limit);
  trace stop_trace();
  bool is_traced() const noexcept { return most_deliveries_ != 0; }
  void note_delivery(const delivery_span& seen) noexcept;
  unsigned next_loop_number() noexcept { return loops_numbered_++; }

  void await_accepted(clock::time_point submitted_by) noexcept override;
  void leave_interpreter() noexcept override;

 private:
  explicit pool_core(const options& with);

  // The last one who held it may be a thread of its own, which cannot join itself.
  struct buried_where_it_cannot_die {
    void operator()(pool_core* dying) const noexcept;
  };
  static std::vector<std::unique_ptr<pool_core>>& graveyard() noexcept;
  bool may_be_destroyed(std::chrono::milliseconds patience) noexcept;
  static void clear_graveyard(std::chrono::milliseconds patience) noexcept;

  void run_initializer() noexcept;
  bool has_nothing_in_flight() const noexcept;
  std::shared_ptr<loop_channel> connect(py::handle loop);
  std::shared_ptr<loop_channel> watched_channel(py::handle loop);
  std::shared_ptr<loop_channel> announced_channel(py::handle loop);
  std::shared_ptr<mailbox> free_mailbox(bool watched) noexcept;
  void close_unused_descriptors() noexcept;
  void bring_all() noexcept;

  const std::string name_;
  const signal_mask mask_ = signal_mask::of_this_thread();  // the maker's
  const delivery delivery_;
  future_style& style_;
  std::atomic<std::size_t> stack_size_{0};  // of threads, as of the last submit
  std::atomic<std::uint64_t> gil_acquisitions_{0};
  gil_lane lane_;
  python_kinds python_kinds_;
  py::object initializer_;  // null when all workers have begun: it may lead to who owns the pool
  unsigned initializers_to_begin_;
  unsigned initializers_under_way_ = 0;
  const bool has_no_owner_;
  bool is_broken_ = false;
  bool is_buried_ = false;
  bool is_awaited_ = false;  // by the exit hook, while buried: nobody may destroy it
  bool is_joined_ = false;
  std::shared_ptr<dispatcher> dispatcher_;
  std::uint64_t wakeups_of_old_mailboxes_ = 0;
  unsigned loops_numbered_ = 0;
  std::size_t most_deliveries_ = 0;  // to note; 0: no trace is taken
  std::vector<delivery_span> deliveries_;
  std::vector<std::shared_ptr<mailbox>> mailboxes_;  // all, for as long as threads may touch them
  std::vector<std::shared_ptr<loop_channel>> channels_;
  std::shared_ptr<loop_channel> last_used_;
  std::vector<unless_forked<concurrent_channel>> concurrent_channels_;
  std::unique_ptr<worker_pool, destroy_unless_left_behind> engine_;  // last: its threads use the above
};

}  // namespace offgil::python

// pool_core.cpp - what is behind a Pool: the engine, and its channels to event loops.
#include "pool_core.hpp"

#include <algorithm>
#include <utility>

#include "errors.hpp"
#include "running_loop.hpp"

namespace offgil::python {
namespace {

// All there are, for purge_all(). Guarded by the GIL; never destroyed.
std::vector<pool_core*>& all_cores() {
  static auto* const leaked = std::make_unique<std::vector<pool_core*>>().release();
  return *leaked;
}

}  // namespace

pool_core::pool_core(worker_pool::options engine, delivery by, future_style& style)
    : name_(engine.name), delivery_(by), style_(style), python_kinds_(lane_), engine_([&] {
        const py::gil_scoped_release threads_may_start;
        return std::make_unique<worker_pool>(std::move(engine)).release();
      }()) {
  all_cores().push_back(this);
}

pool_core::~pool_core() {
  std::erase(all_cores(), this);
  if (engine_->was_left_behind_by_fork()) return;  // the members leak what they must
  const py::gil_scoped_release threads_may_need_it;
  engine_.reset();
  if (dispatcher_) dispatcher_->stop();
}

// ---- channels ----

loop_channel& pool_core::channel() {
  if (last_used_ && last_used_->is_known_to_run()) return *last_used_;
  const py::object loop = running_loop();
  if (last_used_ && last_used_->is_for(loop.ptr())) return *last_used_;
  const auto known = std::find_if(channels_.begin(), channels_.end(),
                                  [&](const auto& each) { return each->is_for(loop.ptr()); });
  // Not by way of last_used_: connecting runs Python code, and other threads change that.
  auto found = known != channels_.end() ? *known : connect(loop);
  last_used_ = found;
  return *found;
}

bool pool_core::has_channel() const {
  const py::object loop = running_loop();
  return std::any_of(channels_.begin(), channels_.end(),
                     [&](const auto& each) { return each->is_for(loop.ptr()); });
}

std::shared_ptr<loop_channel> pool_core::connect(py::handle loop) {
  purge_all();  // a new loop often follows one that has ended
  auto made = delivery_ == delivery::callback ? announced_channel(loop) : watched_channel(loop);
  channels_.push_back(made);
  return made;
}

std::shared_ptr<loop_channel> pool_core::watched_channel(py::handle loop) {
  auto box = free_mailbox(true);
  if (!box) mailboxes_.push_back(box = std::make_shared<mailbox>());
  auto made = std::make_shared<loop_channel>(shared_from_this(), std::move(box), loop);
  try {
    made->watch();
  } catch (py::error_already_set& e) {
    // Some loops cannot watch descriptors, the proactor's for one.
    const bool cannot = e.matches(PyExc_NotImplementedError) || e.matches(PyExc_AttributeError);
    if (delivery_ != delivery::automatic || !cannot) throw;
    return announced_channel(loop);
  }
  return made;
}

std::shared_ptr<loop_channel> pool_core::announced_channel(py::handle loop) {
  if (!dispatcher_)
    dispatcher_ = std::shared_ptr<dispatcher>(
        std::make_unique<dispatcher>(name_, gil_acquisitions_).release(), destroy_unless_forked());
  auto box = free_mailbox(false);
  if (!box) mailboxes_.push_back(box = std::make_shared<mailbox>(dispatcher_));
  auto made = std::make_shared<loop_channel>(shared_from_this(), std::move(box), loop);
  made->watch();
  return made;
}

// One that no channel has, and no loop watches any more.
std::shared_ptr<mailbox> pool_core::free_mailbox(bool watched) noexcept {
  for (const auto& each : mailboxes_)
    if (each.use_count() == 1 && each->is_watched() == watched) return each;
  return nullptr;
}

void pool_core::remove(loop_channel& channel) noexcept {
  if (last_used_.get() == &channel) last_used_.reset();
  std::erase_if(channels_, [&](const auto& each) { return each.get() == &channel; });
}

void pool_core::purge() noexcept {
  if (engine_->was_left_behind_by_fork()) return;
  const auto seen = channels_;
  for (const auto& each : seen) {
    const bool gone = guarded(false, [&] { return each->loop_is_gone(); });
    PyErr_Clear();
    if (!gone) continue;
    each->drop_arrived_threadsafe();
    if (each->in_flight() == 0) remove(*each);
  }
}

void pool_core::purge_all() noexcept {
  std::vector<std::shared_ptr<pool_core>> alive;
  for (pool_core* each : all_cores())
    if (auto core = each->weak_from_this().lock()) alive.push_back(std::move(core));
  for (const auto& each : alive) each->purge();
}

// ---- the end ----

void pool_core::check_usable() const {
  if (engine_->was_left_behind_by_fork())
    raise(exceptions::get().pool_broken,
          "this pool's threads stayed in the parent process when it was forked; make a new pool");
}

void pool_core::close() noexcept {
  if (engine_->was_left_behind_by_fork()) return;
  engine_->close();
  const auto seen = channels_;
  for (const auto& each : seen)
    if (!each->is_in_use()) each->detach_threadsafe();
  purge();
}

void pool_core::join() noexcept {
  if (engine_->was_left_behind_by_fork()) return;
  is_joined_ = true;  // before another thread gets the GIL: it must not wait for one of these
  {
    const py::gil_scoped_release threads_may_need_it;
    engine_->wait_until_finished(std::chrono::hours(24));
    if (dispatcher_) dispatcher_->stop();
  }
  wakeups_of_old_mailboxes_ = wakeups();
  mailboxes_.clear();  // no thread is left to touch them; channels that still deliver hold their own
}

// Jobs that were accepted end, as those of the standard executors do. An interrupt withdraws those that wait.
void pool_core::leave_interpreter() noexcept {
  const auto alive = weak_from_this().lock();
  if (!alive) return;  // being destroyed, which waits for the threads
  if (engine_->was_left_behind_by_fork()) return;
  engine_->close();
  py::object interrupt;
  for (bool finished = false; !finished;) {
    {
      const py::gil_scoped_release threads_may_need_it;
      finished = engine_->wait_until_finished(std::chrono::milliseconds(50));
    }
    if (finished || PyErr_CheckSignals() == 0) continue;
    interrupt = take_raised();
    engine_->cancel_waiting();
  }
  is_joined_ = true;
  {
    const py::gil_scoped_release thread_may_need_it;
    if (dispatcher_) dispatcher_->stop();
  }
  const auto seen = channels_;
  for (const auto& each : seen) {
    each->drop_arrived_threadsafe();
    if (each->in_flight() == 0) remove(*each);  // a daemon thread may be inside submit()
  }
  if (interrupt) restore_raised(std::move(interrupt));
}

std::uint64_t pool_core::wakeups() const noexcept {
  std::uint64_t sum = wakeups_of_old_mailboxes_;
  for (const auto& each : mailboxes_) sum += each->wakeups();
  return sum;
}

}  // namespace offgil::python

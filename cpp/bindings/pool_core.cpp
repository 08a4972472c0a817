// pool_core.cpp - what is behind a Pool: the engine, and its channels to event loops.
#include "pool_core.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

#include "errors.hpp"
#include "native_job.hpp"
#include "running_loop.hpp"
#include "submission.hpp"

namespace offgil::python {
namespace {

// All there are, for purge_all(). Guarded by the GIL; never destroyed.
std::vector<pool_core*>& all_cores() {
  static auto* const leaked = std::make_unique<std::vector<pool_core*>>().release();
  return *leaked;
}

}  // namespace

// ---- beginning and end ----

std::shared_ptr<pool_core> pool_core::start(options with) {
  if (is_exiting())
    raise(exceptions::get().pool_closed, "no pool can be made after the shutdown of the interpreter");
  const auto made = std::shared_ptr<pool_core>(std::unique_ptr<pool_core>(new pool_core(with)).release(),
                                               buried_where_it_cannot_die());
  made->move_in();
  return made;
}

// The first thread starts without the GIL, so that who makes pools without end does not keep their threads
// from getting on.
void pool_core::get_ready() {
  stack_size_.store(PyThread_get_stacksize(), std::memory_order_relaxed);
  try {
    std::optional<py::gil_scoped_release> others_may_go_on;
    if (!engine_->has_started()) {
      lane_.inherit_context();
      others_may_go_on.emplace();
    }
    engine_->get_ready();
  } catch (const std::system_error& e) {
    raise(exceptions::get().pool_error, e.what());
  }
}

pool_core::pool_core(const options& with)
    : name_(with.engine.name),
      delivery_(with.by),
      style_(*with.style),
      lane_(with.engine.name + with.engine.name_separator, gil_acquisitions_),
      python_kinds_(lane_),
      initializer_(with.initializer),
      initializers_to_begin_(with.engine.workers),
      has_no_owner_(with.has_no_owner) {
  auto engine = with.engine;
  engine.stack_size = [this] { return stack_size_.load(std::memory_order_relaxed); };
  engine.on_thread_start = [this] {
    mask_.apply();
    count_acquisitions_in(gil_acquisitions_);
  };
  if (initializer_) {
    engine.start_in = &lane_;
    engine.on_start = [this] { run_initializer(); };
  }
  engine_.reset(std::make_unique<worker_pool>(std::move(engine)).release());
  all_cores().push_back(this);
}

pool_core::~pool_core() {
  std::erase(all_cores(), this);
  if (engine_->was_left_behind_by_fork()) return;  // the members leak what they must
  const py::gil_scoped_release threads_may_need_it;
  engine_.reset();
  if (dispatcher_) dispatcher_->stop();
}

// On a worker, with the GIL.
void pool_core::run_initializer() noexcept {
  const py::object initializer = --initializers_to_begin_ == 0 ? std::move(initializer_) : initializer_;
  if (!initializer) return;  // the collector has taken it: nobody is left to submit
  ++initializers_under_way_;
  PyObject* const result = PyObject_CallNoArgs(initializer.ptr());
  --initializers_under_way_;
  Py_XDECREF(result);
  if (result != nullptr) return;
  log_exception("critical", "Exception in initializer:", {}, take_raised());
  is_broken_ = true;
  engine_->break_down();
}

void pool_core::buried_where_it_cannot_die::operator()(pool_core* dying) const noexcept {
  std::unique_ptr<pool_core> owned(dying);
  if (!dying->is_on_own_thread()) return;
  dying->is_buried_ = true;  // from here on the exit hook waits for its threads, of which this is one
  dying->close();
  if (dying->dispatcher_) dying->dispatcher_->let_end();
  graveyard().push_back(std::move(owned));
  // Its threads end now, but for a moment that the main thread can wait. If not, later will do.
  const auto soon_on_the_main_thread = [](void*) {
    clear_graveyard(std::chrono::milliseconds(10));
    return 0;
  };
  Py_AddPendingCall(soon_on_the_main_thread, nullptr);
}

std::vector<std::unique_ptr<pool_core>>& pool_core::graveyard() noexcept {
  static auto* const leaked = std::make_unique<std::vector<std::unique_ptr<pool_core>>>().release();
  return *leaked;
}

// True: its threads have ended, and the exit hook leaves it to the caller. False also where the exit hook,
// which does not own what is buried, may be waiting for its threads.
bool pool_core::may_be_destroyed(std::chrono::milliseconds patience) noexcept {
  if (engine_->was_left_behind_by_fork() || is_on_own_thread()) return false;
  bool finished = false;
  {
    const py::gil_scoped_release threads_may_need_it;
    finished = engine_->wait_until_finished(patience);
  }
  if (!finished || is_exiting() || is_awaited_) return false;
  is_buried_ = false;
  return true;
}

void pool_core::clear_graveyard(std::chrono::milliseconds patience) noexcept {
  // Out of reach of other threads, which come here while the GIL is released.
  auto all = std::exchange(graveyard(), {});
  const auto ended = std::partition(
      all.begin(), all.end(), [patience](const auto& each) { return !each->may_be_destroyed(patience); });
  graveyard().insert(graveyard().end(), std::move_iterator(all.begin()), std::move_iterator(ended));
}

// ---- channels ----

std::shared_ptr<loop_channel> pool_core::shared_channel() { return channel().shared_from_this(); }

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
  auto box = free_mailbox(false);
  if (!its_dispatcher()->start())
    throw std::system_error(EAGAIN, std::generic_category(),
                            "cannot start the thread of the callback channel");
  if (!box) mailboxes_.push_back(box = std::make_shared<mailbox>(its_dispatcher()));
  auto made = std::make_shared<loop_channel>(shared_from_this(), std::move(box), loop);
  made->watch();
  return made;
}

concurrent_channel& pool_core::open_concurrent_channel() {
  for (const auto& each : concurrent_channels_) {
    if (!each->is_free()) continue;
    each->lend();
    return *each;
  }
  auto made = std::make_unique<concurrent_channel>(*this);
  concurrent_channels_.emplace_back(made.release());
  return *concurrent_channels_.back();
}

const std::shared_ptr<dispatcher>& pool_core::its_dispatcher() {
  if (dispatcher_) return dispatcher_;
  check_not_forked();
  if (is_joined_ || is_exiting()) raise_closed(manners::of_asyncio);
  // As many callbacks may block as with the standard pool, whose workers run them; one more thread goes on.
  const unsigned most_threads = engine_->workers() + 1;
  dispatcher_ = std::shared_ptr<dispatcher>(
      std::make_unique<dispatcher>(name_, most_threads, mask_, stack_size_, gil_acquisitions_).release(),
      destroy_unless_forked());
  return dispatcher_;
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
  end_if_done();
}

void pool_core::drop_what_comes_for(mailbox& box) noexcept {
  const auto alive = shared_from_this();
  // None can be had where the pool has been joined, or the exit has begun: see its_dispatcher().
  const bool is_seen_to =
      !engine_->has_finished() && guarded(false, [this] { return its_dispatcher()->start(); });
  PyErr_Clear();
  if (is_seen_to) box.announce_by(dispatcher_);
  purge();
}

void pool_core::purge() noexcept {
  if (engine_->was_left_behind_by_fork()) return;
  const auto seen = channels_;
  for (const auto& each : seen) {
    if (!each->is_orphaned()) continue;
    each->drop_arrived_threadsafe();
    if (each->in_flight() == 0) remove(*each);
  }
  if (engine_->has_finished()) close_unused_descriptors();
}

// Of a pool that nobody joins: no worker is left to touch the mailboxes that no channel has.
void pool_core::close_unused_descriptors() noexcept {
  std::erase_if(mailboxes_, [this](const auto& each) {
    const bool unused = each->is_watched() && each.use_count() == 1;
    if (unused) wakeups_of_old_mailboxes_ += each->wakeups();
    return unused;
  });
}

void pool_core::purge_all() noexcept {
  std::vector<std::shared_ptr<pool_core>> alive;
  for (pool_core* each : all_cores())
    if (auto core = each->weak_from_this().lock()) alive.push_back(std::move(core));
  for (const auto& each : alive) each->purge();
  clear_graveyard(std::chrono::milliseconds(0));
}

// ---- the end ----

bool pool_core::is_on_own_thread() const noexcept {
  return engine_->is_on_own_thread() || (dispatcher_ && dispatcher_->is_on_own_thread());
}

void pool_core::check_usable() const {
  check_not_forked();
  if (is_broken_) raise(exceptions::get().pool_broken, initializer_failed);
}

void pool_core::check_not_forked() const {
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
  end_if_done();
}

void pool_core::end_by_itself() noexcept {
  if (engine_->was_left_behind_by_fork()) return;
  const auto alive = weak_from_this().lock();
  for (std::size_t i = 0; i < concurrent_channels_.size(); ++i) concurrent_channels_[i]->end_by_itself();
}

void pool_core::end_if_done() noexcept {
  if (has_no_owner_ && dispatcher_ && engine_->is_closed() && has_nothing_in_flight()) dispatcher_->let_end();
}

bool pool_core::has_nothing_in_flight() const noexcept {
  const auto is_empty = [](const auto& each) { return each->in_flight() == 0; };
  return std::all_of(channels_.begin(), channels_.end(), is_empty) &&
         std::all_of(concurrent_channels_.begin(), concurrent_channels_.end(), is_empty);
}

py::handle pool_core::initializer() const noexcept {
  return has_nothing_in_flight() ? py::handle(initializer_) : py::handle();
}

// By index: callbacks that run may make executors, and with them channels.
void pool_core::bring_all() noexcept {
  for (std::size_t i = 0; i < concurrent_channels_.size(); ++i) concurrent_channels_[i]->bring();
}

bool pool_core::join(std::chrono::nanoseconds at_most) noexcept {
  if (engine_->was_left_behind_by_fork()) return true;
  is_joined_ = true;                // before another thread gets the GIL: it must not wait for one of these
  const auto brings = dispatcher_;  // from here on no other one is made: see its_dispatcher()
  {
    const py::gil_scoped_release threads_may_need_it;
    const auto until = clock::now() + at_most;
    if (!engine_->wait_until_finished(at_most)) return false;
    if (brings && !brings->stop_within(until - clock::now())) return false;
  }
  bring_all();
  const auto seen = channels_;
  for (const auto& each : seen)  // once more: from here on no dispatcher sees that a call got lost
    if (each->in_flight() != 0) each->drain_soon_threadsafe();
  wakeups_of_old_mailboxes_ = wakeups();
  mailboxes_.clear();  // no thread is left to touch them; channels that still deliver hold their own
  return true;
}

// Nothing is closed: threads that outlive the main one may submit, and so may jobs.
void pool_core::await_accepted(clock::time_point submitted_by) noexcept {
  const auto alive = weak_from_this().lock();
  if (!alive && !is_buried_) return;  // as below
  if (engine_->was_left_behind_by_fork()) return;
  is_awaited_ = true;
  const bool have_ended =
      wait_at_exit([&](auto at_most) { return engine_->wait_until_ended(submitted_by, at_most); });
  if (const auto brings = dispatcher_; have_ended && brings) {
    const std::uint64_t batches = brings->batches();
    wait_at_exit([&](auto at_most) { return brings->wait_until_brought(batches, at_most); });
  }
  is_awaited_ = false;
}

// Jobs that were accepted end, as those of the standard executors do. An interrupt withdraws those that wait,
// and leaves those alone that run, and callbacks: their threads hang when they ask for the GIL.
void pool_core::leave_interpreter() noexcept {
  const auto alive = weak_from_this().lock();
  if (!alive && !is_buried_) return;  // being destroyed, which waits for the threads; or about to be
  if (engine_->was_left_behind_by_fork()) return;
  engine_->close();
  const auto brings = dispatcher_;  // no other one is made: see its_dispatcher()
  const auto threads_end = [&](auto at_most) {
    const auto until = clock::now() + at_most;
    return engine_->wait_until_finished(at_most) && (!brings || brings->stop_within(until - clock::now()));
  };
  bool have_ended = wait_at_exit(threads_end);
  py::object interrupt = take_raised();
  if (!have_ended) {
    engine_->cancel_waiting();
    have_ended = wait_at_exit(threads_end);
  }
  if (!have_ended) {
    if (brings) brings->let_end();  // no thread starts any more
    // Kept for ever: its threads touch it when they go on.
    if (alive) static_cast<void>(std::make_unique<std::shared_ptr<pool_core>>(alive).release());
    if (interrupt) restore_raised(std::move(interrupt));
    return;
  }
  is_joined_ = true;
  bring_all();
  const auto seen = channels_;
  for (const auto& each : seen) {
    each->drop_arrived_threadsafe();
    if (each->in_flight() == 0) remove(*each);  // a daemon thread may be inside submit()
  }
  if (interrupt) restore_raised(std::move(interrupt));
}

// ---- trace ----

void pool_core::start_trace(std::size_t limit) {
  if (is_traced()) raise(PyExc_RuntimeError, "a trace of this pool is being taken already");
  deliveries_ = {};
  most_deliveries_ = limit;
  engine_->start_trace(limit);
}

trace pool_core::stop_trace() {
  most_deliveries_ = 0;
  return {engine_->stop_trace(), std::exchange(deliveries_, {})};
}

void pool_core::note_delivery(const delivery_span& seen) noexcept {
  if (deliveries_.size() >= most_deliveries_) return;
  guarded(0, [&] {
    deliveries_.push_back(seen);
    return 0;
  });
  PyErr_Clear();  // without memory it is one of those that are not noted
}

std::uint64_t pool_core::wakeups() const noexcept {
  std::uint64_t sum = wakeups_of_old_mailboxes_;
  for (const auto& each : mailboxes_) sum += each->wakeups();
  return sum;
}

}  // namespace offgil::python

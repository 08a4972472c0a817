// cpu_count.cpp - how many CPUs this process may use.
#include "cpu_count.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

namespace offgil {
namespace {

unsigned cpus_in_affinity_mask() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (::sched_getaffinity(0, sizeof mask, &mask) == 0) return static_cast<unsigned>(CPU_COUNT(&mask));
  return std::thread::hardware_concurrency();
}

// cpu.max holds "<quota> <period>" in microseconds, or "max <period>".
double quota_in(const std::filesystem::path& group) {
  std::ifstream file(group / "cpu.max");
  double quota = 0;
  double period = 0;
  if (file >> quota >> period && period > 0) return quota / period;
  return std::numeric_limits<double>::infinity();
}

// The tightest quota from the process's own group up to the root.
double cgroup_quota() {
  const std::filesystem::path root = "/sys/fs/cgroup";
  double tightest = quota_in(root);
  std::ifstream membership("/proc/self/cgroup");
  for (std::string line; std::getline(membership, line);) {
    if (!line.starts_with("0::/")) continue;
    std::filesystem::path group = root / line.substr(4);
    for (; group != root && group.has_relative_path(); group = group.parent_path())
      tightest = std::min(tightest, quota_in(group));
  }
  return tightest;
}

}  // namespace

unsigned usable_cpu_count() {
  const double allowed = std::min<double>(cpus_in_affinity_mask(), std::ceil(cgroup_quota()));
  return std::max(1U, static_cast<unsigned>(allowed));
}

}  // namespace offgil

// cpu_count.hpp - how many CPUs this process may use.
#pragma once

namespace offgil {

// The CPUs of the affinity mask, less where a cgroup v2 quota allows fewer (rounded up). At least 1.
unsigned usable_cpu_count();

}  // namespace offgil

#include "runtime/nvml.hpp"
#include "tests/runtime/cuda/support.hpp"

using namespace glaive;
using namespace glaive::testing;

TEST_CASE("gpu stub: the driver tells its version and its GPUs") {
  fresh_stub();
  CHECK(driver().version_text() == "CUDA 13.0");
  CHECK(driver().devices() == 2);
  const auto info = describe_gpu(driver(), 0);
  REQUIRE(info.has_value());
  CHECK(info->name == "Stub GPU 0");
  CHECK(to_string(info->target) == "cuda:sm_90a");
  CHECK(info->units == 132);
  CHECK(info->l1_bytes == 233472);
  CHECK(info->l2_bytes == 52428800);
  CHECK(info->memory_rate == 3352320000000);
  CHECK(to_string(describe_gpu(driver(), 1)->target) == "cuda:sm_86");
  refused_with(describe_gpu(driver(), 2), Status::failed, {"no GPU 2 of 2"});
  CHECK(stub().contexts() == 0);
}

TEST_CASE("gpu stub: no driver, no GPU, an old one, one that does not start") {
  refused_with(cuda::Driver::open("/nowhere/libcuda.so.1"), Status::not_found,
               {"driver of CUDA", "/nowhere/libcuda.so.1"});
  refused_with(cuda::Driver::open("libm.so.6"), Status::unsupported, {"no driver of CUDA"});
  const auto with = [](const char* variable, const char* value) {
    setenv(variable, value, 1);
    auto opened = cuda::Driver::open(LIBCUDA_STUB);
    unsetenv(variable);
    return opened;
  };
  refused_with(with("STUB_DRIVER_VERSION", "11080"), Status::unsupported, {"CUDA 11.8", "12.0 or newer"});
  refused_with(with("STUB_GPUS", "0"), Status::not_found, {"no GPU", "CUDA_VISIBLE_DEVICES"});
  fresh_stub().fail("Init", cuda::no_device);
  refused_with(cuda::Driver::open(LIBCUDA_STUB), Status::not_found, {"no GPU"});
  fresh_stub().fail("Init", cuda::system_driver_mismatch);
  refused_with(cuda::Driver::open(LIBCUDA_STUB), Status::failed, {"does not start", "CUDA_ERROR_OF_THE_STUB"});
  fresh_stub().fail("DevicePrimaryCtxRetain", cuda::out_of_memory);
  refused_with(open_gpu(driver(), 0), Status::out_of_memory, {"context on GPU 0"});
  const auto device = gpu();
  stub().fail("MemHostAlloc", cuda::out_of_memory);
  refused_with(device->make_exchange(100), Status::out_of_memory, {"page-lock 100 bytes of the host's memory", "free"});
}

TEST_CASE("gpu stub: which code runs where") {
  fresh_stub();
  const auto runs = [](const std::shared_ptr<Device>& device, const char* target) {
    return device->runs(*parse_target(target));
  };
  const auto h100 = gpu(0), small = gpu(1);
  CHECK(runs(h100, "cuda:sm_90a"));
  CHECK(runs(h100, "cuda:sm_90"));
  CHECK(runs(h100, "cuda:compute_80"));
  CHECK_FALSE(runs(h100, "cuda:sm_80"));
  CHECK_FALSE(runs(h100, "cuda:sm_100"));
  CHECK_FALSE(runs(h100, "cpu:x86-64-v2"));
  CHECK(runs(small, "cuda:sm_80"));
  CHECK_FALSE(runs(small, "cuda:sm_90a"));
  CHECK(h100->target() == "cuda:sm_90a");
  CHECK(h100->workers() == 1);
  CHECK_FALSE(h100->is_host());
}

TEST_CASE("gpu stub: a device leaves the thread's context as it was, and nothing behind") {
  fresh_stub().set_kernel("forward", forward_kernel());
  const std::size_t before = stub().allocations();
  cuda::Context mine = nullptr, now = nullptr;
  REQUIRE(driver().api().DevicePrimaryCtxRetain(&mine, 1) == cuda::success);
  for (const bool other_is_current : {false, true}) {
    if (other_is_current) REQUIRE(driver().api().CtxPushCurrent(mine) == cuda::success);
    const auto expected = other_is_current ? mine : nullptr;
    const auto current = [&] {
      REQUIRE(driver().api().CtxGetCurrent(&now) == cuda::success);
      return now;
    };
    {
      const auto device = gpu();
      CHECK(stub().contexts() == 2);
      CHECK(current() == expected);
      const auto block = device->allocate(1000);
      REQUIRE(block.has_value());
      const auto exchange = device->make_exchange(100);
      REQUIRE(exchange.has_value());
      const auto code = gpu_code();
      const auto kernel = device->load(gpu_plan(), {&code, 1});
      REQUIRE(kernel.has_value());
      Launch launch;
      launch.extents = {};
      REQUIRE((*kernel)->launch(launch).has_value());
      CHECK(current() == expected);
      CHECK(stub().allocations() > before);
    }
    CHECK(current() == expected);
    CHECK(stub().allocations() == before);
    CHECK(stub().contexts() == 1);
    if (other_is_current) REQUIRE(driver().api().CtxPopCurrent(&now) == cuda::success);
  }
  REQUIRE(driver().api().DevicePrimaryCtxRelease(1) == cuda::success);
}

TEST_CASE("gpu stub: a thread that has the context already is not made to switch") {
  fresh_stub();
  const auto device = gpu();
  cuda::Context context = nullptr;
  REQUIRE(driver().api().DevicePrimaryCtxRetain(&context, 0) == cuda::success);
  REQUIRE(driver().api().CtxPushCurrent(context) == cuda::success);
  const auto pushes = [] { return std::ranges::count(stub().calls(), "CtxPushCurrent"); };
  const auto before = pushes();
  CHECK(device->allocate(10).has_value());
  CHECK(pushes() == before);
  REQUIRE(driver().api().CtxPopCurrent(&context) == cuda::success);
  CHECK(device->allocate(10).has_value());
  CHECK(pushes() == before + 2);  // to allocate and to free
  REQUIRE(driver().api().DevicePrimaryCtxRelease(0) == cuda::success);
}

TEST_CASE("gpu stub: memory") {
  fresh_stub().set_memory(5000);
  const auto device = gpu();
  const auto block = device->allocate(4096);
  REQUIRE(block.has_value());
  CHECK(reinterpret_cast<std::uintptr_t>(block->get()) % memory_alignment == 0);
  refused_with(device->allocate(2048), Status::out_of_memory, {"2048 bytes", "904 of its 5000 are free"});
  const std::vector<std::byte> from(100, std::byte{9});
  std::vector<std::byte> to(100);
  REQUIRE(device->copy_to_device(block->get() + 7, from).has_value());
  REQUIRE(device->copy_from_device(to, block->get() + 7).has_value());
  CHECK(to == from);
  stub().fail("MemcpyHtoD", 1);
  refused_with(device->copy_to_device(block->get(), from), Status::failed, {"cannot copy 100 bytes to the GPU"});
  CHECK(device->memory_space() != nullptr);
  CHECK(device->memory_space() == gpu()->memory_space());
  CHECK(device->memory_space() != gpu(1)->memory_space());
}

TEST_CASE("gpu stub: an exchange sends each block once it is whole, and waits only when it is four behind") {
  fresh_stub();
  const auto device = gpu();
  const auto exchange = *device->make_exchange(128);
  int stream = 0;
  const auto on_device = [&] { return static_cast<int>(*exchange->address()); };
  for (int i = 1; i <= 4; ++i) {
    const auto block = exchange->compose();
    REQUIRE(block.has_value());
    std::ranges::fill(*block, static_cast<std::byte>(i));
    REQUIRE(exchange->post(&stream).has_value());
    CHECK(on_device() == 0xa5);  // the GPU has not come to any of them
  }
  REQUIRE(exchange->compose().has_value());  // takes the first block back, and so waits for it alone
  CHECK(on_device() == 1);
  stub().run_all();
  CHECK(on_device() == 4);
  stub().fail("EventSynchronize", cuda::illegal_address);
  refused_with(exchange->compose(), Status::device_lost, {"CUDA_ERROR_ILLEGAL_ADDRESS"});
  stub().reset();  // a GPU that is lost gives nothing back
}

TEST_CASE("gpu stub: an exchange that could not be asked, or marked, still keeps what a copy has yet to read") {
  fresh_stub();
  const auto device = gpu();
  const auto exchange = *device->make_exchange(128);
  const auto on_device = [&] { return static_cast<int>(*exchange->address()); };
  const auto compose = [&](int i) {
    const auto block = exchange->compose();
    REQUIRE(block.has_value());
    std::ranges::fill(*block, static_cast<std::byte>(i));
  };
  compose(1);
  REQUIRE(exchange->post(nullptr).has_value());
  stub().fail("MemcpyDtoHAsync", 1);
  refused_with(exchange->ask(nullptr), Status::failed, {"cannot ask the GPU"});
  for (int i = 2; i <= 4; ++i) {
    compose(i);
    REQUIRE(exchange->post(nullptr).has_value());
    CHECK(on_device() == 0xa5);
  }
  compose(5);
  CHECK(on_device() == 1);
  stub().fail("EventRecord", 1);
  refused_with(exchange->post(nullptr), Status::failed, {"cannot send a batch's numbers"});
  CHECK(on_device() == 5);  // nothing would tell when it was read, so it was waited for
}

TEST_CASE("gpu stub: an exchange's answer is what kernels left in the first word by then") {
  fresh_stub();
  const auto device = gpu();
  const auto exchange = *device->make_exchange(128);
  const auto write = [&](int word) {
    const auto block = exchange->compose();
    REQUIRE(block.has_value());
    std::ranges::fill(*block, std::byte{0});
    REQUIRE(exchange->post(nullptr).has_value());
    stub().run_all();
    std::memcpy(exchange->address(), &word, sizeof word);
    REQUIRE(exchange->ask(nullptr).has_value());
  };
  write(1);
  CHECK(exchange->answer() == 0);  // nobody waited
  write(0);
  write(2);
  CHECK(exchange->wait_for_answer().value() == 3);
  CHECK(exchange->wait_for_answer().value() == 0);
}

TEST_CASE("gpu stub: NVML says how a GPU is, and what slows it down") {
  const auto nvml = Nvml::open(LIBCUDA_STUB);
  REQUIRE(nvml.has_value());
  CHECK((*nvml)->driver_version() == "580.1");
  CHECK(bus_id_of_gpu(driver(), 0) == "0000:00:00.0");
  const auto condition = (*nvml)->condition(bus_id_of_gpu(driver(), 0));
  REQUIRE(condition.has_value());
  CHECK(to_string(*condition) == "1755 of 1980 MHz, memory 2619 MHz, 699 of 700 W, ? C, slowed by: power cap");
  refused_with((*nvml)->condition("0000:09:00.0"), Status::not_found, {"no GPU at 0000:09:00.0"});
  refused_with(Nvml::open("/nowhere/nvml.so"), Status::not_found, {"/nowhere/nvml.so"});
  refused_with(Nvml::open("libm.so.6"), Status::unsupported, {"no NVML"});
}

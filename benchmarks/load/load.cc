// Sends one unary gRPC method as fast as the server answers, or at a fixed rate, and prints how
// long the answers took as one line of JSON.
//
//   load --target HOST:PORT --method /package.Service/Method --request FILE [--request FILE ...]
//        [--callers 1] [--channels 1] [--seconds 2] [--warmup 0.5] [--rate 0]
//        [--header NAME=VALUE ...]
//
// Messages are bytes here: a file holds one serialized request, several files take turns. Without
// --rate each caller sends its next request when it has its answer (closed loop). With --rate
// requests a second are sent at even intervals whatever comes back (open loop); an answer's time
// then counts from when its request was due, and a request that finds --callers others unanswered
// is not sent and counted as NOT_SENT. Times are in microseconds, of answers with status OK. What
// counts are answers that arrive between the warm-up and the end; in an open loop, those to requests
// that were due then. Every request has a deadline.
//
// One thread polls all connections, and an open loop has one more that keeps the time, since this
// program shares the machine with the server that it measures.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <malloc.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr auto kDeadline = std::chrono::seconds(30);
constexpr auto kConnect = std::chrono::seconds(10);
constexpr auto kLook = std::chrono::milliseconds(20);  // how often the end is looked for

struct Options {
  std::string target, method;
  std::vector<std::string> requests;  // the bytes of each
  std::vector<std::pair<std::string, std::string>> headers;
  int callers = 1, channels = 1;
  double seconds = 2, warmup = 0.5, rate = 0;  // rate 0: closed loop
};

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

Options Parse(int count, char** words) {
  Options options;
  for (int i = 1; i < count; i += 2) {
    const std::string name = words[i];
    if (i + 1 == count) throw std::runtime_error(name + " needs a value");
    const std::string value = words[i + 1];
    if (name == "--target") options.target = value;
    else if (name == "--method") options.method = value;
    else if (name == "--request") options.requests.push_back(Contents(value));
    else if (name == "--callers") options.callers = std::stoi(value);
    else if (name == "--channels") options.channels = std::stoi(value);
    else if (name == "--seconds") options.seconds = std::stod(value);
    else if (name == "--warmup") options.warmup = std::stod(value);
    else if (name == "--rate") options.rate = std::stod(value);
    else if (name == "--header" && value.find('=') != std::string::npos)
      options.headers.emplace_back(value.substr(0, value.find('=')),
                                   value.substr(value.find('=') + 1));
    else throw std::runtime_error("no option " + name + " " + value);
  }
  if (options.target.empty() || options.method.empty() || options.requests.empty())
    throw std::runtime_error("--target, --method and --request are needed");
  if (options.callers < 1 || options.channels < 1 || !(options.seconds > 0) ||
      !(options.warmup >= 0) || !(options.rate >= 0))
    throw std::runtime_error("callers and channels are 1 or more, seconds above 0");
  return options;
}

const char* Name(int code) {
  static const char* const names[] = {
      "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
      "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
      "UNAUTHENTICATED"};
  return code >= 0 && code < 17 ? names[code] : "OTHER";
}

struct Call {
  grpc::ClientContext context;
  grpc::ByteBuffer reply;
  grpc::Status status;
  std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
  Clock::time_point due;
};

class Load {
 public:
  explicit Load(const Options& options) : options_(options) {
    for (const auto& request : options_.requests) {  // sent from where it lies, never copied
      grpc::Slice slice(request.data(), request.size(), grpc::Slice::STATIC_SLICE);
      requests_.emplace_back(&slice, 1);
    }
    for (int i = 0; i < options_.channels; ++i) {
      grpc::ChannelArguments arguments;
      arguments.SetInt("grpc.use_local_subchannel_pool", 1);  // a connection of its own
      arguments.SetInt("grpc.enable_http_proxy", 0);
      arguments.SetMaxReceiveMessageSize(-1);
      auto channel = grpc::CreateCustomChannel(options_.target,
                                               grpc::InsecureChannelCredentials(), arguments);
      if (!channel->WaitForConnected(std::chrono::system_clock::now() + kConnect))
        throw std::runtime_error("cannot connect to " + options_.target);
      stubs_.push_back(std::make_unique<grpc::GenericStub>(channel));
    }
  }

  // Sends and receives until the time is over and everything sent has ended.
  void Run() {
    const auto start = Clock::now();
    counted_from_ = start + std::chrono::duration_cast<Clock::duration>(Seconds(options_.warmup));
    end_ = counted_from_ + std::chrono::duration_cast<Clock::duration>(Seconds(options_.seconds));
    std::atomic<bool> paced{options_.rate == 0};
    std::thread pacer;
    if (paced) {
      for (int i = 0; i < options_.callers; ++i) Send(start);
    } else {
      pacer = std::thread([&] {
        Pace(start);
        paced = true;
      });
    }
    while (Clock::now() < end_ || !paced || unanswered_ > 0) {
      void* tag;
      bool ok;
      if (queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kLook) ==
          grpc::CompletionQueue::GOT_EVENT)
        Received(std::unique_ptr<Call>(static_cast<Call*>(tag)));
    }
    if (pacer.joinable()) pacer.join();
  }

  void Print() {
    std::sort(times_.begin(), times_.end());
    std::string errors;
    if (not_sent_ > 0) errors_["NOT_SENT"] = not_sent_;
    for (const auto& [code, number] : errors_)
      errors += (errors.empty() ? "\"" : ", \"") + code + "\": " + std::to_string(number);
    std::printf(
        "{\"requests\": %zu, \"errors\": {%s}, \"seconds\": %g, \"rate\": %.2f, \"p50\": %.1f, "
        "\"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f, \"reply_bytes\": %zu, \"answered\": %lld}\n",
        times_.size(), errors.c_str(), options_.seconds, times_.size() / options_.seconds,
        Quantile(0.5), Quantile(0.9), Quantile(0.99), Quantile(1.0), reply_bytes_, answered_);
  }

 private:
  void Send(Clock::time_point due) {
    auto* call = new Call;  // deleted where it is received
    call->due = due;
    call->context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    for (const auto& [name, value] : options_.headers) call->context.AddMetadata(name, value);
    ++unanswered_;
    const size_t turn = sent_++;
    call->reader = stubs_[turn % stubs_.size()]->PrepareUnaryCall(
        &call->context, options_.method, requests_[turn % requests_.size()], &queue_);
    call->reader->StartCall();
    call->reader->Finish(&call->reply, &call->status, call);
  }

  void Pace(Clock::time_point start) {
    prctl(PR_SET_TIMERSLACK, 1UL);  // the kernel's 50 us would count as the server's
    for (int64_t i = 0;; ++i) {
      const auto due =
          start + std::chrono::duration_cast<Clock::duration>(Seconds(i / options_.rate));
      if (due >= end_) return;
      std::this_thread::sleep_until(due);
      if (unanswered_ < options_.callers) Send(due);
      else if (due >= counted_from_) ++not_sent_;
    }
  }

  void Received(std::unique_ptr<Call> call) {
    const auto now = Clock::now();
    --unanswered_;
    ++answered_;
    const auto when = options_.rate == 0 ? now : call->due;
    if (when >= counted_from_ && when < end_) {
      if (call->status.ok()) {
        times_.push_back(std::chrono::duration<double, std::micro>(now - call->due).count());
        reply_bytes_ = call->reply.Length();
      } else {
        ++errors_[Name(call->status.error_code())];
      }
    }
    if (options_.rate == 0 && now < end_) Send(now);
  }

  double Quantile(double part) const {
    if (times_.empty()) return 0;
    return times_[static_cast<size_t>(std::ceil(part * times_.size())) - 1];
  }

  const Options& options_;
  std::vector<grpc::ByteBuffer> requests_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  grpc::CompletionQueue queue_;
  Clock::time_point counted_from_, end_;
  std::atomic<int> unanswered_{0};
  size_t sent_ = 0;  // by the one thread that sends
  long long answered_ = 0, not_sent_ = 0;
  size_t reply_bytes_ = 0;
  std::vector<double> times_;
  std::map<std::string, long long> errors_;
};

}  // namespace

int main(int count, char** words) {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);  // keeps the memory of large messages for the next ones
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  try {
    const Options options = Parse(count, words);
    Load load(options);
    load.Run();
    load.Print();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "load: %s\n", error.what());
    return 2;
  }
  return 0;
}

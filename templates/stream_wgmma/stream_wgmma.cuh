// The loop of the gate warpgroups, and the kernel. What it computes, with which data and roles: data.cuh.
__device__ inline void make_operands(Shared& shared) {
  const u32 length = shared.task.length;
  Ring ring;
  Tier tier = halves;
#pragma unroll 1
  for (Turn turn; turn.first < length; turn.advance(1)) {
    Stage& stage = shared.stage[ring.stage];
    const int left = length - turn.first;
    Near near;
    wait(shared.full[ring.stage], ring.parity);
    if (left < C) clear_rows(stage, left);
    publish_to_products();
    const bool guessed = turn.is_first() and tier >= exact;  // as the chunk before
    if (turn.is_first()) {
      float2 sum;
      if (guessed and gate_group() == 0)
        diagonal(near, stage, [&] { sum = sum_gates(shared, stage, left); });
      else
        sum = sum_gates(shared, stage, left);
      tier = choose_tier(shared, sum);
    }
    if (tier >= exact and not guessed) {
      if (gate_group() == 0) diagonal(near, stage, [] {});
      sync<1, gate_threads>();
    }
    while (true) {
      bool suits = true;
#pragma unroll 1
      for (int i = 0; i < items; ++i) {
        const Item item(i);
        if (tier == halves)
          suits &= weak_operands<halves>(shared, stage, item, left);
        else if (tier == split)
          weak_operands<split>(shared, stage, item, left);
        else if (tier == exact)
          suits &= exact_operands<f16>(shared, stage, item, left);
        else
          exact_operands<bf16>(shared, stage, item, left);
        if (item.block == 0) put_decay(shared, ring.stage, item);
      }
      publish_to_products();
      if (sync_and<1, gate_threads>(suits)) break;
      fetch_again(stage, shared.task, turn);
      tier = tier == halves ? split : wide;
    }
    if (tier == halves)
      weak_scores<halves>(shared, stage);
    else if (tier == split)
      weak_scores<split>(shared, stage);
    else if (tier == exact)
      exact_scores<f16>(near, shared, stage);
    else
      exact_scores<bf16>(near, shared, stage);
    if (threadIdx.x == state_threads) shared.weak[ring.stage] = tier < exact;
    publish_to_products();
    arrive(shared.ready[ring.stage]);
    ring.advance();
  }
}

extern "C" __global__ void __launch_bounds__(threads, 1)
    gla_stream_wgmma(PARAMETERS, const __grid_constant__ Maps maps) {
  const Words words = WORDS;
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const Maps* const source = words.mapped != 0 ? &maps : nullptr;
  if (threadIdx.x == 0) {
    shared.task = find_task<columns, 0, segment>(words);
    for (int i = 0; i < stages; ++i) {
      init_barrier(shared.full[i], source != nullptr ? 1 : state_threads);
      init_barrier(shared.ready[i], gate_threads);
      init_barrier(shared.empty[i], state_threads);
    }
    publish_barriers();
  }
  __syncthreads();
  // The state's branch comes first: with it last the compiler holds it to the registers of the launch (C7512).
  if (threadIdx.x < state_threads) {
    take_registers<state_registers>();
    keep_state(words, shared, source);
  } else {
    give_registers_back<gate_registers>();
    make_operands(shared);
  }
}

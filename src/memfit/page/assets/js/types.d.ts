/** What the scripts pass around: documents as Python writes them, and the engine's classes. */

type Tape = import("memfit/engine/tape").Tape;
type Timeline = import("memfit/engine/timeline").Timeline;
type Plan = import("memfit/engine/plan").Plan;
type BatchPlan = import("memfit/engine/plan").BatchPlan;
type ModuleNode = import("memfit/engine/modules").ModuleNode;

type Scale = ReturnType<typeof import("memfit/charts/timeline-scale").scaleOf>;
type Described = ReturnType<Timeline["describe"]>;
type View = BatchPlan & { card: Card; verdict: "fits" | "tight" | "no" };
type Limits = import("memfit/memory/view").Limits;
type Planning = ReturnType<typeof import("memfit/plan/served").usePlanning>;

type Side = { plan: Plan; batch: number; card: Card };

/** A stretch of events: from the first to one beyond the last. */
type Stretch = { from: number; to: number };

/** How far the server is with a plan. */
type Progress = { stage: string; batch?: number; operators?: number };

/** What the page knows of a run: the document, and every row so far. */
type Followed = { document: RunDocument | null; rows: Record<string, any>[] };

/** Bytes by name of the part. */
type Parts = Record<string, number>;

/** What is drawn is the language's and the theme's. */
type Language = "en" | "zh";
type Theme = "dark" | "light";

/** An error that may say what to do. */
type Told = Error & { hint?: string };

/** documents/card.py */
interface Card {
  key: string;
  name: string;
  architecture: string;
  compute_capability: number[];
  total_bytes: number;
  usable_bytes: number;
  context_bytes: number;
}

/** The card as the reader chose it: by key, perhaps with less free memory, or a size of its own. */
interface CardChoice {
  key: string | null;
  freeBytes: number | null;
  sizeBytes: number | null;
}

/** memory/allocator/settings.py; `roundup_power2_divisions` steps for each power of two from 1 MiB. */
interface AllocatorSettings {
  expandable_segments: boolean;
  max_split_size_bytes: number | null;
  roundup_power2_divisions: number[] | null;
  garbage_collection_threshold: number;
  large_segment_size_bytes: number;
  per_process_memory_fraction: number;
  max_non_split_rounding_bytes: number | null;
}

/** Columns of a tape by allocation, documents/plan.py; those of `strings` and names are counted. */
interface TapeColumns {
  parts: string[];
  phases: string[];
  strings: string[];
  /** (constant, slope) of each dimension, and its square where it has one. */
  shapes: [number, number, number?][][];
  part: number[];
  phase: number[];
  step: number[];
  operator: number[];
  module: number[];
  dtype: number[];
  /** The user's file and line, where a script ran. */
  place?: number[];
  shape: number[];
  constant: number[];
  slope: number[];
  /** Where sizes grow with the square of the batch. */
  square?: number[];
  /** n allocates, ~n frees allocation n. */
  events: number[];
  /** Position, step, phase. */
  marks: [number, number, number][];
  /** How many events are before the validation pass, where there is one. */
  evaluation?: number;
  ruled: { batches: number[]; entries: { allocations: number[]; bytes: number[] }[] };
  /** Of each event, in recorded tapes. */
  times_us?: number[];
}

/** A way to fit more, planner/options.py. */
interface Way {
  name: string;
  flags: string;
  max_batch_size: number;
  [fact: string]: any;
}

/** A recorded point. */
interface MeasuredPoint {
  batch_size: number;
  peak_allocated_bytes?: number | null;
  peak_reserved_bytes?: number | null;
  total_bytes?: number | null;
  source: string;
}

/** documents/plan.py; docs/page.md describes its keys. */
interface PlanDocument {
  memfit_version: string;
  torch_version: string;
  python_version: string;
  model: { name: string; parameters: number };
  /** null of a script. */
  recipe: Record<string, any> | null;
  input_shape: number[];
  command: string[];
  gpu: Card | null;
  card: Card;
  cards: Card[];
  batch_size: number;
  accumulation: number;
  safety: number;
  fits: boolean | null;
  max_batch_size: number | null;
  largest_that_runs: number | null;
  recommended_batch_size: number | null;
  /** No larger batch is recommended: planner/largest.py. */
  useful_batch?: { batch_size: number; because: string } | null;
  learning_rate: Record<string, any> | null;
  /** The validation pass of the planned batch, planner/result.py. */
  /** What forward and loss are given, in words. */
  batch?: { inputs: string[]; targets: string[]; loss: string } | null;
  evaluation?: Record<string, any> | null;
  assumptions: { text: string; [fact: string]: any }[];
  unsupported: Record<string, number>;
  not_modelled?: { text: string; [fact: string]: any }[];
  allocator: AllocatorSettings;
  is_affine: boolean;
  tape: TapeColumns | null;
  traced: Record<string, TapeColumns>;
  options: Way[] | null;
  measured: MeasuredPoint[];
  /** Of a script, documents/script.py. */
  script?: Script;
  engine?: string;
  made_up?: ReadValue[];
}

/** What ran: scripts/plan.py. */
interface Script {
  knob: { kind: string; name: string; batch: number | null };
  why_fixed: string;
  steps: Step[];
  evaluations: (Step & { when: string; forwards: number; place: string })[];
  kept: { path: string; size_bytes: number; is_deleted: boolean }[];
  notes: string[];
  is_benchmarked: boolean;
  proof: Proof | null;
}

/** The most that was in use, in a step or an evaluation. */
interface Step {
  allocated_bytes: number;
  reserved_bytes: number;
}

/** PyTorch's own verdict: a run within the card's memory. */
interface Proof {
  batch_size: number;
  fits: boolean;
  message: string;
  place: string;
  steps: number;
  peak_reserved_bytes: number;
}

/** A value of the GPU that Python read, scripts/told/answer.py. */
interface ReadValue {
  what: string;
  place: string;
  operator: string;
  value: string;
  is_made_up: boolean;
  count: number;
}

/** documents/explained.py */
interface ExplainDocument {
  name: string;
  device: number;
  devices: number[];
  sure_names: string[];
  tape: TapeColumns & { allocated: number[]; reserved: number[]; sure: number[] };
  summary: Record<string, any>;
  facts: Record<string, any>;
}

/** documents/data.py, of which every part is drawn where it is read. */
interface DataDocument {
  name: string;
  channels: number;
  [part: string]: any;
}

/** documents/study.py; the fields of Study in study/results.py, once it is finished. */
interface StudyDocument {
  name: string;
  is_finished: boolean;
  recommendation: Record<string, any> | null;
  knee: number | null;
  noise: Record<string, any>[];
  noise_batch: number | null;
  tradeoff: Record<string, any> | null;
  sizes: Record<string, any>[];
  notes: string[];
  [fact: string]: any;
}

/** documents/run.py */
interface RunDocument {
  name: string;
  status: string;
  resumed: number;
  first_row: number;
  row_count: number;
  rows: Record<string, any>[];
  plan: Record<string, any> | null;
  pace: Record<string, any> | null;
  [fact: string]: any;
}

/* Reads of a past moment (stm/snapshot.py). The box behind a cell is named by the cell that it holds. */

#define SNAPSHOT_LOCALS bool quick; byte latest

#if READERS == 1
#define OLDEST (snapshots[0])
#define NEWEST (snapshots[0])
#else
#define OLDEST (snapshots[0] && (!snapshots[1] || snapshots[0] < snapshots[1]) -> snapshots[0] : snapshots[1])
#define NEWEST (snapshots[0] > snapshots[1] -> snapshots[0] : snapshots[1])
#endif
#define BOX_OF(c) (cell_link[c] && kept_until[cell_link[c]] -> cell_link[c] : 0)

byte kept;                         /* how many boxes are full */
hidden byte at;                    /* a loop's counter, within one step */

/* snapshot.begin, with the moment of elements. */
inline begin_snapshot(number) {
#ifdef M_SNAPSHOT_BEGINS_WITHOUT_LOCK
  rv = LOAD(NOW);
  snapshots[number] = rv + 1;
  quiet = false;
#else
  acquire();
  rv = LOAD(NOW);
  snapshots[number] = rv + 1;
#ifdef BOTH
  moment = CLOCK_OF(LOAD(WORD));
#endif
#ifndef M_QUIET_DURING_A_SNAPSHOT
  quiet = false;
#endif
  release()
#endif
}

/* snapshot.end: forget, which needs no lock, and trim. */
inline end_snapshot(number) {
  snapshots[number] = 0;
  acquire();
  trim();
  release()
}

/* snapshot.trim: empty the boxes of cells that ended before the oldest snapshot began. */
inline trim() {
  d_step {
    at = 1;
    do
    :: at < fresh ->
       if
#ifdef M_TRIM_TOO_MUCH
       :: kept_until[at] && (!OLDEST || kept_until[at] <= NEWEST + 1) -> kept_until[at] = 0; kept--
#else
       :: kept_until[at] && (!OLDEST || kept_until[at] <= OLDEST - 1) -> kept_until[at] = 0; kept--
#endif
       :: else
       fi;
       at++
    :: else -> at = 0; break
    od
  }
}

/* The quick way looks at nothing; the slow way links what a snapshot may read, or trims if there is none. */
inline look_for_snapshots() {
  d_step { quick = quiet; latest = NEWEST };
  if
  :: !quick && !latest -> trim()
  :: else
  fi
}

/* snapshot.link: what to put behind the cell that replaces the one in v. */
inline link(v) {
  if
  :: latest == 0 -> cell_link[cell] = 0
  :: latest && latest - 1 < cell_version[mem[v]] -> cell_link[cell] = BOX_OF(mem[v])
  :: else ->
#ifdef M_NOTHING_LINKED
     cell_link[cell] = 0
#else
     cell_link[cell] = mem[v]; kept_until[mem[v]] = version; kept++
#endif
  fi
}

inline settle_history() { d_step { quiet = (NEWEST == 0 && kept == 0) } }

/* TVar.get of a read-only attempt; snapshot.cell_at. */
inline read_old(v) {
  cell = LOAD(v);
  do
  :: cell_version[cell] <= rv -> break
  :: else -> d_step {
       assert(cell_link[cell] && kept_until[cell_link[cell]]);  /* what a snapshot may read is kept */
       cell = cell_link[cell]
     }
  od;
  skip;
  d_step { got = cell_value[cell]; cell = 0 }
}

/* An element in a read-only attempt: there is no history, so it must be old enough, or the attempt begins again. */
inline read_old_element(i) {
  load_element(i);
  if
  :: sampled <= moment -> sampled = 0
  :: else -> RESTART
  fi
}

/* The thread that wakes. One waiter sleeps until element 0 is 1; another thread waits for element 1, and gives up at
 * any time; a compiled committer changes element 1 and then element 0. The waiter must come to its end, and the waker
 * too.
 */

#define WAITING
#define BOTH
#define RESTART goto restart
#include "memory.pml"
#include "waiting.pml"
#include "objects.pml"
#include "elements.pml"
#include "both.pml"
#include "sleeping.pml"

byte done;

inline forget() { d_step { forget_objects(); forget_elements() } }

proctype Elements(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds == 2 -> break
  :: else ->
     begin_elements();
     if
     :: rounds == 0 -> put[3] = 1
     :: else -> put[2] = 1
     fi;
     commit_elements();
     rounds = rounds + won;
     forget()
  od;
  done++
}

proctype Waiter(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
restart:
  skip;
  forget();
  begin_elements();
  read_element(0);
  if
  :: got == 0 -> sleep_until_changed(false); RESTART
  :: else
  fi;
  forget()
}

proctype Passer(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
restart:
  skip;
  forget();
  begin_elements();
  read_element(1);
  if
  :: got == 0 -> sleep_until_changed(true)
  :: else
  fi;
  forget()
}

init {
  atomic {
#if BUFFER > 0
    run Memory();
#endif
    run Elements(0);
    run Waiter(1);
    run Passer(2);
    run Waker(3)
  };
  done == 1
}

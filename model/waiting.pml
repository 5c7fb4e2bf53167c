/* What the tiers know of those who sleep (see sleeping.pml, which needs both tiers and comes after them). */

byte listed[4];                    /* who waits for X, Y, slot 0, slot 1 */
byte bells;                        /* who is rung for, and has not noticed */
byte woken;                        /* who was woken from the present sleep */
byte sleepers;                     /* clock.sleepers */
bool told;                         /* the waker's pipe holds something */
bool waker_runs;

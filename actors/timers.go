package actors

import (
	"container/heap"
	"time"
)

// noPlace is the place of a mailbox that is not among the timers.
const noPlace int32 = -1

// timers holds every mailbox that waits for a time, in a heap, and the one alarm that rings for the earliest.
// The runtime's lock guards it.
type timers struct {
	heap    timerHeap
	alarm   Timer
	alarmAt time.Duration
}

func (t *timers) add(m *mailbox) { heap.Push(&t.heap, m) }

// remove takes m off, if it is on. The alarm stays: when it rings for nothing it arms itself for the next one.
func (t *timers) remove(m *mailbox) {
	if m.place != noPlace {
		heap.Remove(&t.heap, int(m.place))
	}
}

// due takes the earliest mailbox off if its time has come, else returns nil.
func (t *timers) due(now time.Duration) *mailbox {
	if len(t.heap) == 0 || t.heap[0].due > now {
		return nil
	}
	return heap.Pop(&t.heap).(*mailbox)
}

// arm makes the alarm ring for the earliest mailbox, unless it already rings by then.
func (t *timers) arm(now time.Duration, clock Clock, ring func()) {
	if len(t.heap) == 0 || t.alarm != nil && t.alarmAt <= t.heap[0].due {
		return
	}
	t.disarm()
	t.alarmAt = t.heap[0].due
	t.alarm = clock.AfterFunc(max(0, t.alarmAt-now), ring)
}

func (t *timers) disarm() {
	if t.alarm != nil {
		t.alarm.Stop()
		t.alarm = nil
	}
}

func (t *timers) clear() {
	t.disarm()
	for _, m := range t.heap {
		m.place = noPlace
	}
	t.heap = nil
}

// timerHeap orders by time; ties fall as they fall, which is the same for the same history.
type timerHeap []*mailbox

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].due < h[j].due }

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

func (h *timerHeap) Push(x any) {
	m := x.(*mailbox)
	m.place = int32(len(*h))
	*h = append(*h, m)
}

func (h *timerHeap) Pop() any {
	old := *h
	last := len(old) - 1
	m := old[last]
	old[last] = nil
	m.place = noPlace
	*h = old[:last]
	return m
}

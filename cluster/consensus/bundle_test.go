package consensus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairn-storage/cairn"
	"github.com/cairn-storage/cairn/fsm"
)

// paper is a log on which every entry waits until the test decides about it. The result of a command has its text as ID.
type paper struct {
	*queue
	t       *testing.T
	entries chan *entry
}

type entry struct {
	commands []string
	decided  chan error
}

func newPaper(t *testing.T, entries, commands int) *paper {
	p := &paper{t: t, entries: make(chan *entry, 1000)}
	p.queue = newQueue(p.write, func() (int, int) { return entries, commands })
	return p
}

func (p *paper) write(commands [][]byte, _ time.Time) ([]fsm.Result, error) {
	e := &entry{decided: make(chan error)}
	results := make([]fsm.Result, len(commands))
	for i, c := range commands {
		e.commands = append(e.commands, string(c))
		results[i].ID = string(c)
	}
	p.entries <- e
	return results, <-e.decided
}

// asked is a command on its way; its answer is a word.
type asked struct{ answer chan string }

// ask has a command proposed that may take some seconds.
func (p *paper) ask(command string, seconds int) asked {
	a := asked{make(chan string, 2)}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
		defer cancel()
		result, err := p.do(ctx, []byte(command))
		switch {
		case err == nil:
			a.answer <- result.ID
		case errors.Is(err, cairn.ErrUnknownOutcome):
			a.answer <- "unknown"
		case errors.Is(err, cairn.ErrUnavailable), errors.Is(err, ErrNotLeader):
			a.answer <- "not done"
		default:
			a.answer <- err.Error()
		}
	}()
	synctest.Wait() // it is in the queue, or has left
	return a
}

// next is the entry that was written next; its commands are compared.
func (p *paper) next(want string) *entry {
	p.t.Helper()
	synctest.Wait()
	select {
	case e := <-p.entries:
		if got := strings.Join(e.commands, " "); got != want {
			p.t.Errorf("entry %q, want %q", got, want)
		}
		return e
	default:
		p.t.Fatalf("no entry, want %q", want)
		return nil
	}
}

func (p *paper) none() {
	p.t.Helper()
	synctest.Wait()
	select {
	case e := <-p.entries:
		p.t.Errorf("an entry %q too many", e.commands)
	default:
	}
}

func (p *paper) expect(want string, all ...asked) {
	p.t.Helper()
	synctest.Wait()
	var got []string
	for _, a := range all {
		select {
		case word := <-a.answer:
			got = append(got, word)
		default:
			got = append(got, "nothing")
		}
	}
	if strings.Join(got, ", ") != want {
		p.t.Errorf("answers %q, want %q", strings.Join(got, ", "), want)
	}
}

// left expects that nothing is kept that nobody waits for.
func left(t *testing.T, q *queue) {
	t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.away != 0 || len(q.waiting) != 0 {
		t.Errorf("%d entries and %d commands are left", q.away, len(q.waiting))
	}
}

func TestQueue(t *testing.T) {
	for name, test := range map[string]func(*paper){
		"a lone command leaves at once": func(p *paper) {
			a := p.ask("a", 9)
			p.next("a").decided <- nil
			p.expect("a", a)
			b := p.ask("b", 9)
			p.next("b").decided <- nil
			p.expect("b", b)
		},
		"what comes while two are away shares the next entry": func(p *paper) {
			a, b, c, d, e := p.ask("a", 9), p.ask("b", 9), p.ask("c", 9), p.ask("d", 9), p.ask("e", 9)
			first, second := p.next("a"), p.next("b")
			p.none()
			second.decided <- nil
			third := p.next("c d e")
			f := p.ask("f", 9)
			p.none()
			first.decided <- nil
			fourth := p.next("f")
			p.expect("a, b, nothing, nothing, nothing, nothing", a, b, c, d, e, f)
			third.decided <- nil
			fourth.decided <- nil
			p.expect("c, d, e, f", c, d, e, f)
			left(p.t, p.queue)
		},
		"bounded by count": func(p *paper) {
			for range 2 {
				p.ask("x", 9)
			}
			first, second := p.next("x"), p.next("x")
			for i := range 5 {
				p.ask(fmt.Sprint(i), 9)
			}
			first.decided <- nil
			p.next("0 1 2 3").decided <- nil
			p.next("4").decided <- nil
			second.decided <- nil
		},
		"bounded by bytes": func(p *paper) {
			big := strings.Repeat("-", maxBundleBytes/2)
			huge := strings.Repeat("-", 2*maxBundleBytes)
			p.ask("x", 9)
			p.ask("y", 9)
			first, second := p.next("x"), p.next("y")
			for _, c := range []string{big, big, "z", huge, "w"} {
				p.ask(c, 9)
			}
			first.decided <- nil
			p.next(big + " " + big).decided <- nil
			p.next("z").decided <- nil
			p.next(huge).decided <- nil
			p.next("w").decided <- nil
			second.decided <- nil
		},
		"who gives up in the queue is certainly not done": func(p *paper) {
			a, b := p.ask("a", 9), p.ask("b", 1)
			c, d := p.ask("c", 1), p.ask("d", 9)
			first, second := p.next("a"), p.next("b")
			<-time.After(2 * time.Second)
			p.expect("nothing, unknown, not done, nothing", a, b, c, d)
			first.decided <- nil
			p.next("d").decided <- nil
			second.decided <- nil // nobody listens any more
			p.expect("a, d", a, d)
		},
		"leadership lost": func(p *paper) {
			a, b, c, d := p.ask("a", 9), p.ask("b", 9), p.ask("c", 9), p.ask("d", 9)
			lost := fmt.Errorf("leadership lost: %w", cairn.ErrUnknownOutcome)
			p.next("a").decided <- lost
			p.next("b").decided <- lost
			p.next("c d").decided <- ErrNotLeader
			p.expect("unknown, unknown, not done, not done", a, b, c, d)
			e := p.ask("e", 9) // it leads again
			p.next("e").decided <- nil
			p.expect("e", e)
		},
		"a disk that hangs": func(p *paper) {
			a, b := p.ask("a", 1), p.ask("b", 1)
			first, second := p.next("a"), p.next("b")
			for i := range 10 {
				c := p.ask(fmt.Sprint(i), 1)
				<-time.After(2 * time.Second)
				p.expect("not done", c)
			}
			p.expect("unknown, unknown", a, b)
			first.decided <- nil
			second.decided <- nil
			p.none()
			left(p.t, p.queue)
		},
		"close": func(p *paper) {
			a, b, c := p.ask("a", 9), p.ask("b", 9), p.ask("c", 9)
			first, second := p.next("a"), p.next("b")
			p.close()
			p.expect("nothing, nothing, not done", a, b, c)
			first.decided <- fmt.Errorf("shut down: %w", cairn.ErrUnknownOutcome)
			second.decided <- nil
			p.expect("unknown, b", a, b)
			p.expect("not done", p.ask("d", 9))
			p.none()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(newPaper(t, 2, 4)) })
		})
	}
}

// TestQueueBesideAnOlderNode: a node that does not understand bundles gets none, and nobody waits for that.
func TestQueueBesideAnOlderNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaper(t, math.MaxInt, 1)
		for _, c := range []string{"a", "b", "c", "d"} {
			p.ask(c, 9)
		}
		for _, c := range []string{"a", "b", "c", "d"} {
			defer func(e *entry) { e.decided <- nil }(p.next(c))
		}
		p.none()
	})
}

// TestQueueAnswersOnce plays random callers, deadlines and failures: each command is in at most one entry, who is told that it
// was not done is in none, and who gets a result gets its own.
func TestQueueAnswersOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex
		written := map[string]int{}
		refused := map[string]bool{}
		q := newQueue(func(commands [][]byte, _ time.Time) ([]fsm.Result, error) {
			mu.Lock()
			took, fails := time.Duration(random.IntN(300))*time.Millisecond, random.IntN(8)
			results := make([]fsm.Result, len(commands))
			for i, c := range commands {
				results[i].ID = string(c)
				if fails == 0 {
					refused[string(c)] = true
				} else {
					written[string(c)]++
				}
			}
			mu.Unlock()
			<-time.After(took)
			switch fails {
			case 0:
				return nil, ErrNotLeader
			case 1:
				return nil, fmt.Errorf("lost: %w", cairn.ErrUnknownOutcome)
			}
			return results, nil
		}, func() (int, int) { return maxEntries, 8 })
		var callers sync.WaitGroup
		answers := make([]int, 4)
		for i := range 2000 {
			mu.Lock()
			after, patience := time.Duration(random.IntN(10_000))*time.Millisecond, time.Duration(1+random.IntN(400))*time.Millisecond
			mu.Unlock()
			callers.Go(func() {
				<-time.After(after)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				name := fmt.Sprint(i)
				result, err := q.do(ctx, []byte(name))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					answers[0]++
					if result.ID != name || written[name] != 1 {
						t.Errorf("%s got the result of %s; written %d times", name, result.ID, written[name])
					}
				case errors.Is(err, cairn.ErrUnknownOutcome):
					answers[1]++
				case errors.Is(err, ErrNotLeader):
					answers[2]++
					if written[name] != 0 || !refused[name] {
						t.Errorf("%s is told that this is no leader, but it was written", name)
					}
				case errors.Is(err, cairn.ErrUnavailable):
					answers[3]++
					refused[name] = true
				default:
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		callers.Wait()
		<-time.After(time.Second) // what is away comes back, though nobody waits for it
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for name, times := range written {
			if times != 1 || refused[name] {
				t.Errorf("%s was written %d times; refused: %v", name, times, refused[name])
			}
		}
		if slices.Contains(answers, 0) {
			t.Errorf("results, unknown, no leader, withdrawn: %v; one of them has not been tried", answers)
		}
		left(t, q)
	})
}

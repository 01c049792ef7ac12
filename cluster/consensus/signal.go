package consensus

import "sync"

// signal wakes everybody who waits, and nobody who comes later.
type signal struct {
	mu      sync.Mutex
	channel chan struct{}
}

// wait returns a channel that is closed at the next fire. Look at what you wait for after this, and then receive.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channel == nil {
		s.channel = make(chan struct{})
	}
	return s.channel
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channel != nil {
		close(s.channel)
		s.channel = nil
	}
}

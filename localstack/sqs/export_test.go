package sqs

// Waiting returns how many receives wait.
func (s *Server) Waiting() (n int) {
	for _, q := range *s.queues.Load() {
		q.mu.Lock()
		n += len(q.waiters)
		q.mu.Unlock()
	}
	return n
}

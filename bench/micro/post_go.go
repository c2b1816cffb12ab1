// The scenario "worker" of post.c over Go: one goroutine sends functions to another, which runs them, by a channel with
// room for as many as are ever on the way there. With "ask" each is answered by a second channel. There is no loop and
// nothing else to wait for: what a select over more than the channel costs is not in here.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"time"
)

const (
	window = 4096
	slices = 50
)

type post struct {
	function func(*state)
	arg      *state
}

type state struct {
	received, slice, nextSlice, total uint64
	last                              time.Time
	took                              []float64
}

func receive(s *state) {
	s.received++
	if s.received != s.nextSlice {
		return
	}
	now := time.Now()
	if !s.last.IsZero() {
		s.took = append(s.took, float64(now.Sub(s.last).Nanoseconds()))
	}
	s.last = now
	s.nextSlice += s.slice
}

func run(s *state, posts <-chan post, answers chan<- struct{}) {
	for s.received < s.total {
		p := <-posts
		p.function(p.arg)
		if answers != nil {
			answers <- struct{}{}
		}
	}
}

// Never more than the window are on the way, there or back.
func sendAndTakeAnswers(s *state, posts chan<- post, answers <-chan struct{}) {
	var sent, answered uint64
	for answered < s.total {
		if sent == s.total || sent-answered == window {
			<-answers
			answered++
			continue
		}
		select {
		case <-answers:
			answered++
		default:
			posts <- post{receive, s}
			sent++
		}
	}
}

func main() {
	if len(os.Args) < 3 || os.Args[1] != "worker" {
		fmt.Fprintln(os.Stderr, "usage: post-go worker COUNT [ask]")
		os.Exit(2)
	}
	count, _ := strconv.ParseUint(os.Args[2], 10, 64)
	runtime.GOMAXPROCS(2)
	s := &state{slice: count / slices}
	s.nextSlice = s.slice * 5
	s.total = s.nextSlice + s.slice*slices
	posts := make(chan post, window)
	done := make(chan struct{})
	var answers chan struct{}
	if len(os.Args) > 3 {
		answers = make(chan struct{}, window)
	}
	go func() {
		run(s, posts, answers)
		close(done)
	}()
	if answers != nil {
		sendAndTakeAnswers(s, posts, answers)
	} else {
		for sent := uint64(0); sent < s.total; sent++ {
			posts <- post{receive, s}
		}
	}
	<-done
	sort.Float64s(s.took)
	fmt.Printf("ns %.4f\n", (s.took[slices/2-1]+s.took[slices/2])/2/float64(s.slice))
}

#!/usr/bin/env escript
%% The same as supervisors.c, over Erlang's supervisors: commands of a file, one a line; after each step it is printed
%% who runs and how often each was started.
-module(supervisors_of_erlang).
-mode(compile).
-export([main/1, init/1, start_node/1]).

-record(node, {id, type, parent, restart = permanent, strategy, intensity, fails = [], starts = 0}).

main([File]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    ets:new(nodes, [named_table, public, ordered_set, {keypos, #node.id}]),
    {ok, Text} = file:read_file(File),
    lists:foldl(fun obey/2, none, [string:lexemes(Line, " ") || Line <- string:lexemes(binary_to_list(Text), "\n")]).

%% The root's pid, or `none`, goes from command to command.
obey(["tree", Number], _) ->
    ets:delete_all_objects(nodes),
    io:format("tree ~s~n", [Number]),
    none;
obey(["s", Parent, Restart, Strategy, Intensity], Root) ->
    add(#node{type = supervisor, parent = list_to_integer(Parent), restart = restart(Restart),
              strategy = strategy(Strategy), intensity = list_to_integer(Intensity)}, Root);
obey(["w", Parent, Restart], Root) ->
    add(#node{type = worker, parent = list_to_integer(Parent), restart = restart(Restart)}, Root);
obey(["f", Id, Start], Root) ->
    [Node] = ets:lookup(nodes, list_to_integer(Id)),
    ets:insert(nodes, Node#node{fails = [list_to_integer(Start) | Node#node.fails]}),
    Root;
obey(["go"], _) ->
    Root = case start_node(0) of
               {ok, Pid} -> Pid;
               {error, _} -> none
           end,
    show(Root);
obey(["k", Id, Reason], Root) ->
    case maps:find(list_to_integer(Id), look(Root)) of
        {ok, Pid} -> stop(list_to_integer(Id), Pid, reason(Reason));
        error -> ok
    end,
    show(Root);
obey(["end"], Root) ->
    stop(0, Root, shutdown),
    none.

add(Node, Root) ->
    ets:insert(nodes, Node#node{id = ets:info(nodes, size)}),
    Root.

restart("p") -> permanent;
restart("t") -> transient;
restart("y") -> temporary.

strategy("o") -> one_for_one;
strategy("a") -> one_for_all.

reason("n") -> normal;
reason("s") -> shutdown;
reason("e") -> failure.

%% ---- Starting ----

start_node(Id) ->
    [Node] = ets:lookup(nodes, Id),
    Start = ets:update_counter(nodes, Id, {#node.starts, 1}),
    case {lists:member(Start, Node#node.fails), Node#node.type} of
        {true, _} -> {error, planned};
        {false, supervisor} -> supervisor:start_link(?MODULE, Id);
        {false, worker} -> {ok, spawn_link(fun() -> receive {stop, Reason} -> exit(Reason) end end)}
    end.

init(Id) ->
    [Node] = ets:lookup(nodes, Id),
    Children = [#{id => Child#node.id, start => {?MODULE, start_node, [Child#node.id]},
                  restart => Child#node.restart, type => Child#node.type,
                  shutdown => case Child#node.type of supervisor -> infinity; worker -> 5000 end}
                || Child <- ets:tab2list(nodes), Child#node.parent =:= Id],
    {ok, {#{strategy => Node#node.strategy, intensity => Node#node.intensity, period => 3600}, Children}}.

%% ---- Ending one ----

stop(_, none, _) ->
    ok;
stop(Id, Pid, Reason) ->
    Watch = monitor(process, Pid),
    case ets:lookup_element(nodes, Id, #node.type) of
        worker -> Pid ! {stop, Reason};
        supervisor -> catch proc_lib:stop(Pid, Reason, infinity)
    end,
    receive {'DOWN', Watch, process, _, _} -> ok end.

%% ---- Who runs: as soon as no supervisor has one of its own that is dead, or about to be started ----

look(Root) ->
    try below(0, Root, #{})
    catch
        throw:again -> erlang:yield(), look(Root);
        exit:_ -> erlang:yield(), look(Root)
    end.

below(_, none, Found) ->
    Found;
below(0, Root, Found) ->
    case is_process_alive(Root) of
        true -> children(0, Root, Found#{0 => Root});
        false -> Found
    end;
below(Id, Pid, Found) ->
    is_process_alive(Pid) orelse throw(again),
    children(Id, Pid, Found#{Id => Pid}).

children(Id, Pid, Found) ->
    case ets:lookup_element(nodes, Id, #node.type) of
        worker -> Found;
        supervisor ->
            lists:foldl(fun({_, undefined, _, _}, All) -> All;
                           ({_, restarting, _, _}, _) -> throw(again);
                           ({Child, ChildPid, _, _}, All) -> below(Child, ChildPid, All)
                        end, Found, supervisor:which_children(Pid))
    end.

show(Root) ->
    Found = look(Root),
    io:format("~s~n", [lists:join(" ", [[case maps:is_key(Id, Found) of true -> "+"; false -> "-" end,
                                         integer_to_list(Starts)]
                                        || #node{id = Id, starts = Starts} <- ets:tab2list(nodes)])]),
    Root.

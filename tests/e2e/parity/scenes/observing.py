"""stats, top, events and the rest of what tells about containers that run."""

from tests.e2e.parity.scene import Differs, Scene

_PAST = "--since $START --until $(date +%s.%N)"
_NAMES = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"

SCENES = (
    Scene(
        name="stats",
        text="""
        -docker run -d --name up --network none -m 64m busybox sleep 100 >/dev/null
        -docker create --name new busybox true >/dev/null
        docker stats --no-stream --format '{{.Name}} {{.Container}} {{.PIDs}} {{.NetIO}} {{.CPUPerc}}' up new
        docker stats --no-stream --format '{{.MemUsage}} {{.MemPerc}} {{.BlockIO}}' new
        docker stats --no-stream --format json new
        docker stats --no-stream --format 'table {{.Name}}\t{{.PIDs}}' new up
        docker stats --no-stream -a --format '{{.Name}}' | sort
        docker stats --no-stream --format '{{.Name}}'
        docker stats --no-stream nope
        docker stats --no-stream up nope nada
        docker stats --no-stream --format '{{.Nope}}' new
        docker stats --no-stream --format '{{' new
        docker stats --nope
        GET /v1.41/containers/nope/stats?stream=0
        GET /v1.41/containers/new/stats?stream=0
        GET /v1.41/containers/new/stats?stream=0&one-shot=1
        GET /v1.41/containers/up/stats?stream=1&one-shot=1
        GET /v1.41/containers/up/stats?one-shot=1
        """,
    ),
    Scene(
        name="top",
        text="""
        -docker run -d --name up --network none busybox sh -c 'sleep 100 & exec sleep 200' >/dev/null
        -docker create --name new busybox true >/dev/null
        docker top up -o pid,comm | sed 's/^[0-9]*/PID/'
        docker top up -eo pid,user,args | sed 's/^[0-9]*/PID/'
        docker top up | head -1
        docker top up aux | head -1
        docker top up -o user,group,pid,args --sort=-args | sed 's/ [0-9][0-9]* / PID /'
        docker top up -o comm
        docker top up -o pid,nope
        docker top up '; ls'
        docker top up axo ppid=PID,comm
        docker top up -C nope
        docker top new
        docker top nope
        docker top
        -docker pause up >/dev/null
        docker top up -o pid,comm | wc -l # paused
        -docker unpause up >/dev/null
        -docker exec -d up sleep 300
        docker top up -o pid,comm | wc -l # with an exec
        GET /v1.41/containers/nope/top
        GET /v1.41/containers/new/top
        """,
    ),
    Scene(
        name="rename, wait, port, resize",
        text="""
        -docker run -d --name up --expose 80 --expose 53/udp busybox sleep 100 >/dev/null
        -docker create --name new busybox true >/dev/null
        docker rename new newer; docker ps -a --format '{{.Names}}' | sort
        docker rename newer up
        docker rename newer newer
        docker rename newer /newer2
        docker rename newer2 ' '
        docker rename newer2 a/b
        docker rename newer2 -x
        docker rename newer2 x
        docker rename nope other
        docker rename up
        docker rename '' x
        -docker rename up up2
        docker inspect -f '{{.Name}}' up2
        POST /v1.41/containers/up2/rename
        POST /v1.41/containers/up2/rename?name=
        POST /v1.41/containers/up2/rename?name=!
        POST /v1.41/containers/nope/rename?name=x
        docker ps --format '{{.Names}} {{.Ports}}'
        docker port up2
        docker port up2 80
        docker port up2 80/tcp
        docker port up2 nope
        docker port up2 99999
        docker port nope
        docker port newer2
        docker port
        docker wait nope
        docker wait newer2
        docker wait newer2 nope
        docker wait
        POST /v1.41/containers/newer2/wait?condition=nope
        POST /v1.41/containers/nope/wait
        POST /v1.41/containers/newer2/wait?condition=not-running
        docker start up2; (sleep 0.3; docker kill up2 >/dev/null) & docker wait up2
        POST /v1.41/containers/up2/resize?h=1&w=1
        POST /v1.41/containers/nope/resize?h=1&w=1
        POST /v1.41/containers/up2/resize
        POST /v1.41/containers/up2/resize?h=x&w=1
        """,
        differs={
            "POST /v1.41/containers/newer2/wait?condition=nope": Differs(
                reason="28 knows its three conditions",
                code=400,
                out='{"message": "invalid condition: \\"nope\\""}\n',
            ),
        },
    ),
    Scene(
        name="event filters",
        text=f"""
        -docker run --name one -v vol1:/v -l k=v -l tier=front busybox true
        -docker run -d --name two -it busybox sleep 100 >/dev/null
        -docker exec two true
        -docker top two >/dev/null
        -docker rename two tow
        -docker restart -t 0 tow >/dev/null
        -docker rm -f tow >/dev/null
        -docker tag busybox other:1; docker rmi other:1 >/dev/null
        -docker container prune -f >/dev/null; docker volume prune -f >/dev/null; docker network prune -f >/dev/null
        docker events {_PAST} --format '{_NAMES}' | sort
        docker events {_PAST} --filter container=one --filter container=t --format '{_NAMES}' | sort
        docker events {_PAST} --filter container=vol --format '{_NAMES}'
        docker events {_PAST} --filter container=bri --filter event=connect --format '{_NAMES}'
        docker events {_PAST} --filter network=br --format '{_NAMES}'
        docker events {_PAST} --filter volume=vol1 --format '{{{{.Action}}}}'
        docker events {_PAST} --filter type=container --filter type=image --filter event=tag --filter event=top --format '{_NAMES}'
        docker events {_PAST} --filter event=exec_start --format '{{{{.Action}}}}'
        docker events {_PAST} --filter event=exec_die --format '{{{{.Action}}}}'
        docker events {_PAST} --filter event=exec --format '{{{{.Action}}}}'
        docker events {_PAST} --filter event=prune --format '{{{{.Type}}}} {{{{json .Actor}}}}'
        docker events {_PAST} --filter label=k --filter event=create --format '{_NAMES}'
        docker events {_PAST} --filter label=k=v --filter label=tier=back --format '{_NAMES}'
        docker events {_PAST} --filter label=image=busybox --filter event=create --format '{_NAMES}'
        docker events {_PAST} --filter image=busybox --filter event=start --format '{_NAMES}'
        docker events {_PAST} --filter image=busybox:latest --filter event=start --format '{_NAMES}'
        docker events {_PAST} --filter daemon=x --format '{_NAMES}'
        docker events {_PAST} --filter node=two --format '{_NAMES}' | wc -l
        docker events {_PAST} --filter scope=local --filter event=rename --format '{{{{.Scope}}}} {{{{.Actor.Attributes.oldName}}}}'
        docker events {_PAST} --filter event=start --format '{{{{.Status}}}}|{{{{.From}}}}|{{{{len .ID}}}}'
        docker events {_PAST} --filter event=kill --filter event=resize --filter event=restart --format '{{{{.Action}}}}' | uniq
        docker events --until $START --since 2020-01-01 --filter container=nope
        docker events {_PAST} --filter event=destroy --format '{{{{upper .Type}}}} {{{{printf "%.3s" .Action}}}}'
        docker events {_PAST} --format '{{{{.Actor.Nope}}}}'
        docker events {_PAST} --format '{{{{range .}}}}'
        docker system events {_PAST} --filter event=rename --format '{{{{.Action}}}}'
        """,
        differs={
            f"docker events {_PAST} --filter event=prune --format '{{{{.Type}}}} {{{{json .Actor}}}}'": Differs(
                reason="the directory that a volume was mounted on takes a block of the disk",
                out='container {"ID":"","Attributes":{"reclaimed":"4096"}}\n'
                'volume {"ID":"","Attributes":{"reclaimed":"0"}}\n'
                'network {"ID":"","Attributes":{"reclaimed":"0"}}\n',
            ),
        },
    ),
    Scene(
        name="prune",
        text="""
        -docker create --name keep --label keep=1 busybox true >/dev/null
        -docker create --name gone busybox true >/dev/null
        -docker volume create named >/dev/null; docker volume create >/dev/null
        echo n | docker container prune
        echo n | docker image prune
        echo n | docker image prune -a
        echo n | docker volume prune
        echo n | docker volume prune -a
        echo n | docker network prune
        echo n | docker system prune
        echo n | docker system prune -a --volumes
        echo n | docker system prune --filter until=24h --filter label=x
        docker system prune -f --volumes --filter until=24h
        docker container prune -f --filter label!=keep
        docker container prune -f --filter label=nope
        docker container prune -f --filter until=24h
        docker container prune -f --filter until=nope
        docker container prune -f --filter until=1h --filter until=2h
        docker container prune -f --filter name=x
        docker image prune -f --filter nope=x
        docker volume prune -f --filter nope=x
        docker network prune -f --filter nope=x
        docker network prune -f --filter until=nope
        docker system prune -f --filter label=nope
        docker ps -a --format '{{.Names}}'
        docker volume ls --format '{{.Name}}' | wc -l
        docker builder prune -f 2>/dev/null
        """,
        differs={
            "echo n | docker volume prune": Differs(
                reason="since API 1.42 only anonymous volumes are pruned",
                out="WARNING! This will remove anonymous local volumes not used by at least one container.\n"
                "Are you sure you want to continue? [y/N]",
            ),
            "echo n | docker volume prune -a": Differs(
                reason="since API 1.42 all volumes are pruned on request",
                code=0,
                out="WARNING! This will remove all local volumes not used by at least one container.\n"
                "Are you sure you want to continue? [y/N]",
                err="",
            ),
        },
    ),
)

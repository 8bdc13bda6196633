"""ps, inspect, events, info, version, df."""

from tests.e2e.parity.scene import Differs, Scene

_EVENT = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"

_ON_DISK = "what the disk holds, in its blocks, not the lengths of files"

SCENES = (
    Scene(
        name="ps",
        text="""
        docker ps
        docker ps -a -q
        -docker run -d --name up --label x=1 --label y busybox sleep 100 >/dev/null
        -docker create --name new --network none -v vol:/v busybox echo 'a long command line' with words >/dev/null
        -docker run --name done --network host busybox sh -c 'exit 3'; true
        docker ps # with one
        docker ps -a
        docker ps -l
        docker ps -n 2
        docker ps -n nope
        docker ps -aq | wc -l
        docker ps -aq --no-trunc
        docker ps -a --no-trunc
        docker ps -a --format '{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.State}}|{{.Label "x"}}|{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}|{{.Ports}}'
        docker ps -a --format '{{.CreatedAt}}|{{.RunningFor}}|{{.ID}}'
        docker ps -a --format json | wc -l
        docker ps --format 'table {{.Names}}\t{{.Label "x"}}'
        docker ps --format '{{.Nope}}'
        docker ps --format '{{'
        docker ps -a --filter status=exited --format '{{.Names}}'
        docker ps -a --filter status=created --filter status=running --format '{{.Names}}'
        docker ps --filter status=nope
        docker ps -a --filter exited=3 --format '{{.Names}}'
        docker ps -a --filter exited=nope
        docker ps -a --filter name=^u --format '{{.Names}}'
        docker ps -a --filter name=/up --format '{{.Names}}'
        docker ps -a --filter name='(' --format '{{.Names}}'
        docker ps -a --filter label=x --format '{{.Names}}'
        docker ps -a --filter label=x=2 --format '{{.Names}}'
        docker ps -a --filter label=y --filter label=x=1 --format '{{.Names}}'
        docker ps -a --filter ancestor=busybox --format '{{.Names}}'
        docker ps -a --filter ancestor=nope --format '{{.Names}}'
        docker ps -a --filter before=done --format '{{.Names}}'
        docker ps -a --filter since=up --format '{{.Names}}'
        docker ps -a --filter since=nope
        docker ps -a --filter volume=vol --format '{{.Names}}'
        docker ps -a --filter volume=/v --format '{{.Names}}'
        docker ps -a --filter network=none --format '{{.Names}}'
        docker ps -a --filter network=nope --format '{{.Names}}'
        docker ps -a --filter id=$(docker ps -lq) --format '{{.Names}}'
        docker ps -a --filter health=none --format '{{.Names}}'
        docker ps -a --filter health=nope
        docker ps -a --filter publish=80 --format '{{.Names}}'
        docker ps -a --filter expose=nope
        docker ps -a --filter is-task=true
        docker ps -a --filter is-task=nope
        docker ps -a --filter isolation=nope
        docker ps -a --filter nope=1
        docker ps -a --filter nope
        docker ps nope
        docker ps -a -s --format '{{.Names}} {{.Size}}'
        GET /v1.41/containers/json?limit=nope
        GET /v1.41/containers/json?filters=nope
        GET /v1.41/containers/json?filters=%7B%22status%22%3A%22up%22%7D
        GET /v1.41/containers/json?all=nope&limit=1
        """,
        differs={
            "GET /v1.41/containers/json?all=nope&limit=1": Differs(
                reason="28 lists further fields of endpoints",
                out='[{"Command": "sh -c \'exit 3\'", "Created": EPOCH, "HostConfig": {"NetworkMode": "host"}, "Id": "ID", "Image": "busybox", "ImageID": "sha256:ID", "Labels": {}, "Mounts": [], "Names": ["/done"], "NetworkSettings": {"Networks": {"host": {"Aliases": null, "DNSNames": null, "DriverOpts": null, "EndpointID": "", "Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "GwPriority": 0, "IPAMConfig": null, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "Links": null, "MacAddress": "", "NetworkID": "ID"}}}, "Ports": [], "State": "exited", "Status": "Exited (3) AGE ago"}]\n',
            ),
        },
    ),
    Scene(
        name="inspect",
        text="""
        -docker create --name plain busybox >/dev/null
        docker inspect -f '{{json .Config}}' plain
        docker inspect -f '{{json .HostConfig}}' plain
        docker inspect -f '{{json .State}}' plain
        docker inspect -f '{{json .NetworkSettings}}' plain
        docker inspect -f '{{.Path}} {{.Args}} {{.Name}} {{.RestartCount}} {{.Driver}} {{.Platform}} {{.MountLabel}} {{.AppArmorProfile}} {{.ExecIDs}} {{json .Mounts}}' plain
        docker inspect -f '{{.LogPath}}|{{.ResolvConfPath}}|{{.HostnamePath}}' plain
        -docker create --name full -h host.name --domainname dom -u app -e A=b -w /w -l k=v --entrypoint ls -m 64m --memory-reservation 32m --cpus 1.5 --pids-limit 9 --cap-add net_admin --cap-drop CHOWN --dns 1.1.1.1 --add-host x:1.2.3.4 --ulimit nofile=5 --tmpfs /t --read-only --init --privileged --security-opt label=disable --shm-size 1m --stop-signal INT --stop-timeout 5 --sysctl net.ipv4.ip_forward=1 --device /dev/null --group-add 5 --oom-kill-disable=false --log-opt max-size=1m --expose 80 -it busybox -la >/dev/null
        docker inspect -f '{{json .Config}}' full
        docker inspect -f '{{json .HostConfig}}' full
        -docker run -d --name up busybox sleep 100 >/dev/null
        docker inspect -f '{{json .State}}' up
        docker inspect -f '{{json .NetworkSettings}}' up
        docker inspect -f '{{.Config.Image}} {{.Image}} {{.GraphDriver.Name}}' up
        docker inspect -s -f '{{.SizeRw}} {{.SizeRootFs}}' plain
        docker inspect nope
        docker inspect plain nope -f '{{.Name}}'
        docker inspect --type container busybox
        docker inspect --type image plain
        docker inspect --type nope plain
        docker inspect -f '{{.Nope}}' plain
        docker inspect -f '{{' plain
        docker inspect
        docker container inspect plain -f '{{.Name}}'
        docker image inspect plain
        docker inspect bridge -f '{{.Driver}}'
        docker inspect $(docker inspect -f '{{.Id}}' plain | cut -c1-5) -f '{{.Name}}'
        docker inspect '' -f x
        GET /v1.41/containers/nope/json
        GET /v1.41/containers/%20/json
        """,
        differs={
            "docker inspect -f '{{json .HostConfig}}' plain": Differs(
                reason="28 resolves the default network, hides more of /proc and /sys; every container has a cgroup namespace; the runtime's name",
                out='{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"bridge","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"private","Dns":[],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":67108864,"Runtime":"sampan","Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":null,"OomKillDisable":DEFAULT,"PidsLimit":null,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":[PATHS],"ReadonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}\n',
            ),
            "docker inspect -f '{{json .HostConfig}}' full": Differs(
                reason="28 resolves the default network, hides more of /proc and /sys; every container has a cgroup namespace; the runtime's name",
                out='{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},"NetworkMode":"bridge","PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":["CAP_NET_ADMIN"],"CapDrop":["CAP_CHOWN"],"CgroupnsMode":"private","Dns":["1.1.1.1"],"DnsOptions":[],"DnsSearch":[],"ExtraHosts":["x:1.2.3.4"],"GroupAdd":["5"],"IpcMode":"private","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"","Privileged":true,"PublishAllPorts":false,"ReadonlyRootfs":true,"SecurityOpt":["label=disable"],"Tmpfs":{"/t":""},"UTSMode":"","UsernsMode":"","ShmSize":1048576,"Sysctls":{"net.ipv4.ip_forward":"1"},"Runtime":"sampan","Isolation":"","CpuShares":0,"Memory":67108864,"NanoCpus":1500000000,"CgroupParent":"","BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],"BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,"CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/null","CgroupPermissions":"rwm"}],"DeviceCgroupRules":null,"DeviceRequests":null,"MemoryReservation":33554432,"MemorySwap":134217728,"MemorySwappiness":null,"OomKillDisable":DEFAULT,"PidsLimit":9,"Ulimits":[{"Name":"nofile","Hard":5,"Soft":5}],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,"MaskedPaths":null,"ReadonlyPaths":null,"Init":true}\n',
            ),
            "docker inspect -f '{{json .NetworkSettings}}' up": Differs(
                reason="no file stands for the network namespace",
                out='{"Bridge":"","SandboxID":"ID","SandboxKey":"","Ports":{},"HairpinMode":false,"LinkLocalIPv6Address":"","LinkLocalIPv6PrefixLen":0,"SecondaryIPAddresses":null,"SecondaryIPv6Addresses":null,"EndpointID":"ID","Gateway":"ADDRESS","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"IPAddress":"ADDRESS","IPPrefixLen":LENGTH,"IPv6Gateway":"","MacAddress":"MAC","Networks":{"bridge":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"MAC","DriverOpts":null,"GwPriority":0,"NetworkID":"ID","EndpointID":"ID","Gateway":"ADDRESS","IPAddress":"ADDRESS","IPPrefixLen":LENGTH,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}\n',
            ),
        },
    ),
    Scene(
        name="events",
        text=f"""
        -docker run --name cc -v vol:/v busybox true
        -docker start -a cc
        -docker run -d --name dd -l k=v busybox sleep 100 >/dev/null
        -docker exec dd true
        -docker pause dd >/dev/null; docker unpause dd >/dev/null; docker kill dd >/dev/null; docker wait dd >/dev/null
        -docker rename dd ee; docker rm ee >/dev/null
        docker events --since $START --until $(date +%s.%N) --format '{_EVENT}'
        docker events --since $START --until $(date +%s.%N) --filter container=cc --format '{_EVENT}'
        docker events --since $START --until $(date +%s.%N) --filter container=cc --filter event=die --format '{{{{json .Actor.Attributes}}}}'
        docker events --since $START --until $(date +%s.%N) --filter event=start --filter event=stop --format '{_EVENT}'
        docker events --since $START --until $(date +%s.%N) --filter type=volume --format '{{{{.Action}}}} {{{{json .Actor.Attributes}}}}'
        docker events --since $START --until $(date +%s.%N) --filter type=network --format '{{{{.Action}}}}'
        docker events --since $START --until $(date +%s.%N) --filter label=k=v --filter event=die --format '{{{{json .Actor.Attributes}}}}'
        docker events --since $START --until $(date +%s.%N) --filter label=k=x
        docker events --since $START --until $(date +%s.%N) --filter image=busybox --filter event=create --format '{_EVENT}'
        docker events --since $START --until $(date +%s.%N) --filter scope=swarm
        docker events --since $START --until $(date +%s.%N) --filter nope=x
        docker events --since $START --until $(date +%s.%N) --filter nope
        docker events --since nope
        docker events --until nope --since 1s
        docker events --since $START --until $(date +%s.%N) --filter event=kill
        docker events --since 10s --until 2000-01-01
        docker events --since $START --until $(date +%s.%N) --filter container=cc --format json | head -n1
        docker events --since $START --until $(date +%s.%N) --format '{{{{.Nope}}}}'
        docker tag busybox t:1; docker rmi t:1
        docker events --since $START --until $(date +%s.%N) --filter type=image --format '{{{{.Action}}}} {{{{.Actor.ID}}}} {{{{json .Actor.Attributes}}}}'
        GET /v1.41/events?since=nope
        GET /v1.41/events?until=1&since=2
        GET /v1.41/events?until=1&filters=nope
        """,
    ),
    Scene(
        name="system",
        text="""
        GET /_ping
        GET /v1.41/_ping
        GET /v1.11/_ping
        GET /v9.9/_ping
        GET /v1.x/_ping
        GET /nope
        GET /v1.41/nope
        POST /v1.41/_ping
        GET /v1.41/containers/create
        DELETE /v1.41/containers/json
        docker version -f '{{.Server.Os}} {{.Server.Arch}} {{.Server.Experimental}}'
        docker version -f '{{.Nope}}'
        docker info -f '{{.OSType}} {{.Architecture}} {{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}} {{.Images}}'
        docker info -f '{{.Driver}} {{.LoggingDriver}} {{.CgroupDriver}} {{.DefaultRuntime}} {{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}'
        docker info -f '{{.MemoryLimit}} {{.CPUCfsPeriod}} {{.CPUCfsQuota}} {{.CPUShares}} {{.CPUSet}} {{.PidsLimit}} {{.IPv4Forwarding}} {{.Debug}}'
        docker info -f '{{.SecurityOptions}} {{.Plugins.Volume}} {{.Plugins.Network}} {{.IndexServerAddress}}'
        docker info -f '{{.Nope}}'
        docker info nope
        docker system df
        -docker run --name cc -v vol:/v busybox sh -c 'echo 12345678 >/x; echo 123 >/v/x'
        docker system df # with a container and a volume
        docker system df -v
        docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}}'
        docker system df --format '{{.Nope}}'
        docker system prune
        docker system prune -f
        docker system prune -f --filter nope=x
        docker nope
        """,
        differs={
            "GET /v1.11/_ping": Differs(
                reason="28 answers JSON; this engine's range of versions",
                out='{"message": "client version 1.11 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}\n',
            ),
            "GET /v9.9/_ping": Differs(
                reason="28 answers JSON; this engine's range of versions",
                out='{"message": "client version 9.9 is too new. Maximum supported API version is 1.56"}\n',
            ),
            "docker info -f '{{.Driver}} {{.LoggingDriver}} {{.CgroupDriver}} {{.DefaultRuntime}} {{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}'": Differs(
                reason="the runtime's name; containers always outlive the daemon",
                out="overlay2 json-file cgroupfs sampan true inactive\n",
            ),
            "docker system df # with a container and a volume": Differs(
                reason=_ON_DISK,
                out="TYPE  TOTAL  ACTIVE  SIZE  RECLAIMABLE\nImages  1  1  SIZE  0B (0%)\n"
                "Containers  1  0  SIZE  SIZE (100%)\nLocal Volumes  1  1  SIZE  0B (0%)\n"
                "Build Cache  0  0  0B  0B\n",
            ),
            "docker system df -v": Differs(
                reason=_ON_DISK,
                out="Images space usage:\n\n"
                "REPOSITORY  TAG  IMAGE ID  CREATED  SIZE  SHARED SIZE  UNIQUE SIZE  CONTAINERS\n"
                "busybox  latest  ID  AGE ago  SIZE  0B  SIZE  1\n\nContainers space usage:\n\n"
                "CONTAINER ID  IMAGE  COMMAND  LOCAL VOLUMES  SIZE  CREATED  STATUS  NAMES\n"
                'ID  busybox  "sh -c \'echo 1234567…"  1  SIZE  AGE ago  Exited (0) AGE ago  cc\n\n'
                "Local Volumes space usage:\n\nVOLUME NAME  LINKS  SIZE\nvol  1  SIZE\n\n"
                "Build cache usage: 0B\n\n"
                "CACHE ID  CACHE TYPE  SIZE  CREATED  LAST USED  USAGE  SHARED\n",
            ),
            "docker system prune -f": Differs(
                reason=_ON_DISK,
                out="Deleted Containers:\nID\n\nTotal reclaimed space: SIZE\n",
            ),
            "docker info -f '{{.SecurityOptions}} {{.Plugins.Volume}} {{.Plugins.Network}} {{.IndexServerAddress}}'": Differs(
                reason="28's name of the profile; user namespaces; the network drivers that are offered",
                out="[name=seccomp,profile=builtin name=userns name=cgroupns] [local] [bridge host null] https://index.docker.io/v1/\n",
            ),
        },
    ),
)

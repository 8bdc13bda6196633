"""Images, volumes, networks."""

from tests.e2e.parity.scene import Differs, Scene

SCENES = (
    Scene(
        name="images",
        text="""
        docker images
        docker images -q
        docker images --no-trunc
        docker images --digests
        docker images busybox
        docker images busybox:latest -q
        docker images busybox:nope
        docker images 'busy*'
        docker images 'b[' -q
        docker images a b
        docker images --format '{{.Repository}}|{{.Tag}}|{{.Digest}}|{{.Size}}|{{.CreatedSince}}'
        docker images --format '{{.Nope}}'
        docker images --filter dangling=true
        docker images --filter dangling=nope
        docker images --filter label=nope
        docker images --filter reference='busybox:l*' -q
        docker images --filter before=nope
        docker images --filter since=busybox
        docker images --filter nope=1
        docker tag busybox other:1
        docker tag busybox other
        docker tag busybox other:1 # again
        docker tag busybox reg.example:5000/a/b:c
        docker tag nope x
        docker tag busybox BAD
        docker tag busybox x:bad/tag
        docker tag busybox x@sha256:0000000000000000000000000000000000000000000000000000000000000000
        docker tag busybox
        docker tag busybox 0123456789012345678901234567890123456789012345678901234567890123
        docker images --format '{{.Repository}}:{{.Tag}}' | sort
        docker rmi other:1
        docker rmi other:1 # again
        docker rmi other nope
        docker rmi $(docker images -q busybox)
        docker rmi reg.example:5000/a/b:c
        docker rmi nope
        docker rmi -f nope
        docker rmi BAD
        docker rmi
        docker rmi ''
        -docker tag busybox in-use:1
        -docker run -d --name cc in-use:1 sleep 100 >/dev/null
        docker rmi in-use:1
        -docker tag busybox in-use:1
        docker rmi busybox
        docker rmi in-use:1 # the last name of an image in use
        docker rmi -f in-use:1
        docker ps --format '{{.Image}}'
        docker inspect -f '{{.Config.Image}}' cc
        docker images -a
        """,
    ),
    Scene(
        name="image archives",
        text="""
        docker save busybox | tar xO manifest.json | grep -c Layers
        docker save busybox >$T/a.tar; tar xOf $T/a.tar manifest.json | grep -o '"RepoTags":[^]]*]'
        docker save -o $T/b.tar busybox; test -s $T/b.tar
        docker tag busybox busybox:two; docker save busybox | tar xO manifest.json | grep -o 'busybox:[a-z]*' | sort; docker rmi busybox:two
        docker save nope
        docker save -o $T/nope/x busybox
        docker save
        docker save busybox nope >$T/c.tar
        docker save BAD >$T/c.tar # a bad name
        docker load -i $T/a.tar
        docker load <$T/a.tar
        docker load -q -i $T/a.tar
        gzip <$T/a.tar >$T/a.tgz; docker load -i $T/a.tgz
        docker load -i $T/nope
        docker load </dev/null
        echo nope | docker load
        head -c 2000 $T/a.tar | docker load
        printf x >$T/x; tar -C $T -c x | docker load
        echo '[{"Config": "nope.json", "Layers": []}]' >$T/manifest.json; tar -C $T -c manifest.json | docker load
        echo '[{' >$T/manifest.json; tar -C $T -c manifest.json | docker load # not JSON
        echo '[{"Config": "../../etc/passwd", "Layers": []}]' >$T/manifest.json; tar -C $T -c manifest.json | docker load # a path out
        docker image load nope
        mkdir $T/root; echo content >$T/root/file; tar -C $T/root -c . >$T/root.tar
        docker import $T/root.tar imported:1
        docker import - imported:2 <$T/root.tar
        docker import -m message -c 'CMD ["x", "y"]' -c 'ENV A=1 B=2' -c 'EXPOSE 80' -c 'LABEL l=v' -c 'USER u' -c 'WORKDIR /w' -c 'VOLUME /v' -c 'ENTRYPOINT e f' $T/root.tar imported:3
        docker image inspect -f '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Env}} {{json .Config.ExposedPorts}} {{json .Config.Labels}} {{json .Config.User}} {{json .Config.WorkingDir}} {{json .Config.Volumes}} {{.Comment}}' imported:3
        docker import -c 'NOPE x' $T/root.tar imported:4
        docker import -c 'RUN x' $T/root.tar imported:4
        docker import -c 'ENV' $T/root.tar imported:4
        docker import $T/root.tar BAD
        docker import $T/root.tar x@sha256:0000000000000000000000000000000000000000000000000000000000000000
        docker import $T/nope imported:4
        docker import
        docker import --platform nope/nope/nope/nope $T/root.tar imported:4
        echo nope | docker import - imported:4
        docker run --rm imported:1 sh
        docker run --rm imported:1
        docker history busybox
        docker history -q busybox
        docker history --no-trunc imported:3
        docker history --format '{{.ID}} {{.Comment}} {{.Size}}' imported:3
        docker history nope
        docker image inspect nope
        docker image inspect -f '{{.Os}} {{.Architecture}} {{.Parent}} {{.DockerVersion}} {{.Author}} {{json .RepoTags}} {{json .RepoDigests}} {{.RootFS.Type}} {{len .RootFS.Layers}}' busybox
        docker image inspect -f '{{json .Config}}' busybox
        docker import - <$T/root.tar | wc -c
        docker images --filter dangling=true --format '{{.Repository}}:{{.Tag}}'
        docker image prune -f | wc -l
        docker image prune
        docker image prune -f --filter nope=1
        docker images --format '{{.Repository}}:{{.Tag}}' | sort
        docker pull nope:nope@x
        docker push nope
        """,
        differs={
            "docker load </dev/null": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err="Error response from daemon: invalid archive: unexpected end of archive\n",
            ),
            "echo nope | docker load": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err="Error response from daemon: invalid archive: unexpected end of archive\n",
            ),
            "head -c 2000 $T/a.tar | docker load": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err="Error response from daemon: invalid archive: neither manifest.json nor index.json is in it\n",
            ),
            "printf x >$T/x; tar -C $T -c x | docker load": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err="Error response from daemon: invalid archive: neither manifest.json nor index.json is in it\n",
            ),
            'echo \'[{"Config": "nope.json", "Layers": []}]\' >$T/manifest.json; tar -C $T -c manifest.json | docker load': Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err='Error response from daemon: invalid archive: "nope.json" is missing\n',
            ),
            "echo '[{' >$T/manifest.json; tar -C $T -c manifest.json | docker load # not JSON": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err="Error response from daemon: manifest.json: invalid JSON: Expecting property name enclosed in double quotes: line 2 column 1 (char 3)\n",
            ),
            'echo \'[{"Config": "../../etc/passwd", "Layers": []}]\' >$T/manifest.json; tar -C $T -c manifest.json | docker load # a path out': Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err='Error response from daemon: invalid archive: "../../etc/passwd" is missing\n',
            ),
            "echo nope | docker import - imported:4": Differs(
                reason="dockerd tells paths of its own or a tar program's end; here the archive's fault is named",
                err="Error response from daemon: invalid archive: unexpected end of archive\n",
            ),
        },
    ),
    Scene(
        name="volumes",
        text="""
        docker volume ls
        docker volume create v1
        docker volume create v1 # again
        docker volume create --label a=b --label cc v2
        docker volume create --name v3
        docker volume create v3 v4
        docker volume create | wc -c
        docker volume create x
        docker volume create 'a b'
        docker volume create a/b
        docker volume create -d nope v5
        docker volume create -o nope=1 v5
        docker volume create -o type=tmpfs v5
        docker volume ls -q --filter name=v
        docker volume ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Label "a"}} {{.Links}} {{.Size}}' --filter name=v
        docker volume ls -q --filter label=a
        docker volume ls -q --filter label=a=x
        docker volume ls -q --filter driver=local --filter name=v1
        docker volume ls -q --filter driver=nope
        docker volume ls -q --filter dangling=true --filter name=v1
        docker volume ls --filter dangling=nope
        docker volume ls --filter nope=1
        docker volume ls --format '{{.Nope}}'
        docker volume inspect v2 -f '{{.Driver}} {{.Name}} {{.Scope}} {{json .Options}} {{json .Labels}} {{.CreatedAt}}'
        docker volume inspect v1 -f '{{json .Options}} {{json .Labels}}'
        docker volume inspect nope
        docker volume inspect
        -docker create --name cc -v v1:/v busybox >/dev/null
        docker volume rm v1
        docker volume rm -f v1
        docker volume rm nope
        docker volume rm -f nope
        docker volume rm v2 v2
        docker volume rm
        docker volume prune
        docker volume prune -f
        docker volume prune -f --filter nope=1
        docker volume prune -f --filter label=a
        docker volume ls -q --filter name=v # kept
        docker rm cc; docker volume rm v1
        POST /v1.41/volumes/create {"Name": "raw"}
        POST /v1.41/volumes/create {"Name": 5}
        POST /v1.41/volumes/create nope
        POST /v1.41/volumes/create
        GET /v1.41/volumes/nope
        GET /v1.41/volumes?filters=nope
        DELETE /v1.41/volumes/nope
        """,
        differs={
            "docker volume prune": Differs(
                reason="since API 1.42 named volumes are kept",
                out="WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue? [y/N]",
            ),
            "docker volume prune -f": Differs(
                reason="since API 1.42 named volumes are kept",
                out="Deleted Volumes:\nID\n\nTotal reclaimed space: 0B\n",
            ),
            "docker volume ls -q --filter name=v # kept": Differs(
                reason="since API 1.42 named volumes are kept", out="v1\nv3\n"
            ),
        },
    ),
    Scene(
        name="networks",
        text="""
        docker network ls
        docker network ls -q | wc -l
        docker network ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.IPv6}} {{.Labels}}'
        docker network ls --filter driver=bridge --format '{{.Name}}'
        docker network ls --filter name=o --format '{{.Name}}'
        docker network ls --filter type=custom --format '{{.Name}}'
        docker network ls --filter type=builtin --format '{{.Name}}'
        docker network ls --filter type=nope
        docker network ls --filter scope=local --format '{{.Name}}'
        docker network ls --filter scope=nope
        docker network ls --filter dangling=true --format '{{.Name}}'
        docker network ls --filter dangling=nope
        docker network ls --filter label=x
        docker network ls --filter nope=1
        docker network ls --format '{{.Nope}}'
        docker network inspect bridge -f '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Attachable}} {{.Ingress}} {{.IPAM.Driver}} {{len .IPAM.Config}} {{len .Containers}}'
        docker network inspect host none -f '{{.Name}} {{.Driver}} {{json .IPAM}} {{json .Options}} {{json .Containers}} {{json .Labels}}'
        docker network inspect nope
        docker network inspect
        docker network inspect bridge nope -f '{{.Name}}'
        -docker run -d --name cc busybox sleep 100 >/dev/null
        docker network inspect bridge -f '{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}}{{end}}'
        docker network rm bridge
        docker network rm nope
        docker network rm
        docker network prune
        docker network prune -f
        docker network create bridge
        docker network connect nope cc
        docker network connect host cc
        docker network disconnect nope cc
        GET /v1.41/networks/nope
        GET /v1.41/networks?filters=nope
        DELETE /v1.41/networks/host
        """,
    ),
)

# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 debian:12
USER root
RUN { command -v apt-get >/dev/null 2>&1 || { echo 'mllaunch: the base image has no apt-get, which installs system packages' >&2; exit 1; }; } && \
    apt-get update && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev && \
    apt-get clean && \
    rm -rf /var/lib/apt/lists/*
RUN cd / && \
    mkdir -p /.mllaunch && \
    { python3 -m pip freeze > /.mllaunch/requirements.lock 2>/dev/null || rm -f /.mllaunch/requirements.lock; } && \
    { python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); pairs = zip(sys.argv[1::2], sys.argv[2::2]); write = lambda name, text: open(os.path.join(place, name), "w").write(text.replace(";;", chr(10))); [write(*pair) for pair in pairs]' mllaunch_begin.py 'def begin():;;    try:;;        import os, sys;;        hook = '"'"'/.mllaunch/hook'"'"';;        if os.path.isdir(hook) and sys.version_info >= (3, 8):;;            sys.path.insert(0, hook);;            try:;;                import mllaunch_hook;;            finally:;;                sys.path.remove(hook);;            mllaunch_hook.install();;    except Exception:;;        pass;;' mllaunch-begin.pth 'import mllaunch_begin; mllaunch_begin.begin();;' mllaunch-begin.start 'mllaunch_begin:begin;;' 2>/dev/null || true; }
# the folder c-layer is beside this file, too
COPY ["c-layer/", "/.mllaunch/c-layer/"]
RUN cd /.mllaunch/c-layer && \
    if tool=$(command -v cc || command -v gcc || command -v clang); then "$tool" -O2 -shared -fPIC -w -o preload.so preload.c -ldl -lpthread >why 2>&1 && LD_PRELOAD=/.mllaunch/c-layer/preload.so /bin/sh -c "exit 0" >why 2>&1 || echo "exit status $?" >>why; else echo 'the image has no C compiler, which image.system: [gcc, libc6-dev] brings on Debian' >why; fi && \
    if [ -s why ]; then cat why; rm -f preload.so; else rm why; fi

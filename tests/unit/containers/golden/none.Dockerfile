# made by mllaunch: what the code runs in; the build context is the folder dependencies beside this file
FROM --platform=linux/amd64 debian:12
USER root
RUN cd / && \
    mkdir -p /.mllaunch && \
    { python3 -m pip freeze > /.mllaunch/requirements.lock 2>/dev/null || rm -f /.mllaunch/requirements.lock; } && \
    { python3 -c 'import os, sys, sysconfig; place = sysconfig.get_path("purelib"); os.makedirs(place, exist_ok=True); pairs = zip(sys.argv[1::2], sys.argv[2::2]); write = lambda name, text: open(os.path.join(place, name), "w").write(text.replace(";;", chr(10))); [write(*pair) for pair in pairs]' mllaunch_begin.py 'def begin():;;    try:;;        import os, sys;;        hook = '"'"'/.mllaunch/hook'"'"';;        if os.path.isdir(hook) and sys.version_info >= (3, 8):;;            sys.path.insert(0, hook);;            try:;;                import mllaunch_hook;;            finally:;;                sys.path.remove(hook);;            mllaunch_hook.install();;    except Exception:;;        pass;;' mllaunch-begin.pth 'import mllaunch_begin; mllaunch_begin.begin();;' mllaunch-begin.start 'mllaunch_begin:begin;;' 2>/dev/null || true; }

# Asks the guest agent as vmmd does, and looks at what the guest's writers do meanwhile.
import json, re, shutil, socket, subprocess, sys, time


def failed(text):
    print("FAILED: " + text)
    sys.exit(1)


def numbers():
    """How far the two writers are, and the guest's tick."""
    text = open("/tmp/console", errors="replace").read()
    found = re.findall(r"GUEST tick (\d+) outer (\d+) inner (\d+)", text)
    return [int(n) for n in found[-1]]


class Agent:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect("/tmp/vsock")
        self.file = self.socket.makefile("rwb")
        if not self.line("CONNECT 1028").startswith("OK "):
            failed("nobody listens in the guest")

    def line(self, text):
        self.file.write(text.encode() + b"\n")
        self.file.flush()
        return self.file.readline().decode()

    def ask(self, **question):
        answer = self.line(json.dumps({"v": 1, **question}, separators=(",", ":")))
        return json.loads(answer) if answer else {}

    def freeze(self, seconds):
        answer = self.ask(freeze={"seconds": seconds})
        if answer != {"v": 1, "frozen": 2, "left": 0}:
            failed(f"freeze: {answer}")

    def close(self):
        self.file.close()
        self.socket.close()


def goes_on(what, since):
    for _ in range(120):
        time.sleep(0.5)
        now = numbers()
        if now[1] > since[1] + 1 and now[2] > since[2] + 1:
            print(f"ok: {what}: the writers go on, {since[1:]} to {now[1:]}")
            return
    failed(f"{what}: the writers stand still at {numbers()}")


def stands_still():
    """Both writers, while the guest ticks on. The tick that is being written when the freeze comes may still show a step."""
    time.sleep(1.5)
    before = numbers()
    time.sleep(4)
    after = numbers()
    if after[1:] != before[1:] or after[0] <= before[0]:
        failed(f"while frozen: from {before} to {after}")
    return after


def copy(kind):
    for disk in ("outer", "inner"):
        subprocess.run(["cp", "--sparse=always", f"/tmp/{disk}", f"/tmp/{disk}.{kind}"], check=True)


agent = Agent()
able = agent.ask(get="agent")
if able != {"v": 1, "agent": able.get("agent"), "memory": True, "freeze": True}:
    failed(f"agent: {able}")
goes_on("before", numbers())
copy("running")

began = time.monotonic()
agent.freeze(60)
print(f"ok: two file systems frozen in {(time.monotonic() - began) * 1000:.0f} ms")
still = stands_still()
copy("frozen")
nodes = Agent().ask(get="memory").get("nodes")
if not nodes:
    failed("it does not tell of memory while frozen")
answer = agent.ask(thaw=True)
if answer != {"v": 1, "thawed": 2, "late": False}:
    failed(f"thaw: {answer}")
goes_on("thawed", still)

agent.freeze(20)
still = stands_still()
goes_on("by its time", still)
answer = agent.ask(thaw=True)
if answer != {"v": 1, "thawed": 2, "late": True}:
    failed(f"late thaw: {answer}")

agent.freeze(60)
still = stands_still()
agent.close()
goes_on("when the host went away", still)

agent = Agent()
agent.freeze(60)
still = stands_still()
open("/tmp/input", "w").write("kill\n")
goes_on("when the agent was killed", still)
time.sleep(3)
agent = Agent()
agent.freeze(60)
if agent.ask(thaw=True) != {"v": 1, "thawed": 2, "late": False}:
    failed("the agent that came after does not thaw")
print("ok: the next agent freezes and thaws")

using System.Diagnostics;
using System.Text;
using System.Text.Json;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Guests.Qemu;

namespace Vmm.Daemon.Vms;

/// <summary>
/// Commands in a VM's guest, by its standard agent. Each look at how one stands is a conversation of its own, so that a long command keeps
/// nobody from the agent.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="agent">Its agent.</param>
internal sealed class VmGuestExec(VmSupervisor vm, VmStandardAgent agent)
{
    private const int MostArguments = 256, MostBytes = 64 * 1024, MostInput = 48 * 1024, DefaultSeconds = 60, MostSeconds = 600;
    private const int LongestResult = 8 << 20; // bytes of JSON, about three quarters of which can be what the command wrote

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(15), s_first = TimeSpan.FromMilliseconds(20),
        s_slowest = TimeSpan.FromMilliseconds(500);

    // Results of all VMs that are read at one time: what guests can make this daemon keep.
    private static readonly SemaphoreSlim s_results = new(4, 4);

    /// <summary>Carries out a command and waits for its end.</summary>
    /// <exception cref="ApiException">It cannot be, or did not end in time.</exception>
    internal async Task<GuestExecResult> RunAsync(GuestExecWish wish, CancellationToken cancellation)
    {
        TimeSpan limit = Check(wish);
        vm.RequireWorker();
        long began = Stopwatch.GetTimestamp();
        return await agent.ForApiAsync(async () =>
        {
            QemuProcess process = await agent.ConverseAsync(
                (conversation, token) => conversation.AskAsync(
                    "guest-exec", QemuJson.Default.QemuProcess, token, json => Write(wish, json)),
                s_patience, cancellation).ConfigureAwait(false);
            for (TimeSpan pause = s_first; ; pause = pause * 2 < s_slowest ? pause * 2 : s_slowest)
            {
                await Task.Delay(pause, cancellation).ConfigureAwait(false);
                QemuProcessStatus status = await StatusAsync(process.Pid, cancellation).ConfigureAwait(false);
                if (status.Exited)
                {
                    return new GuestExecResult(status.Signal is null ? status.Exitcode ?? 0 : null, status.Signal, status.OutData ?? [],
                        status.ErrData ?? [], status.OutTruncated || status.ErrTruncated);
                }

                if (Stopwatch.GetElapsedTime(began) > limit)
                {
                    throw new QemuAgentException(QemuAgentFault.Silent, $"the command did not end within {limit.TotalSeconds:0} s; it runs "
                        + $"on in the guest as process {process.Pid}");
                }
            }
        }).ConfigureAwait(false);
    }

    private async Task<QemuProcessStatus> StatusAsync(long process, CancellationToken cancellation)
    {
        await s_results.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            return await agent.ConverseAsync(
                (conversation, token) => conversation.AskAsync(
                    "guest-exec-status", QemuJson.Default.QemuProcessStatus, token, json => json.WriteNumber("pid"u8, process),
                    LongestResult),
                s_patience, cancellation).ConfigureAwait(false);
        }
        finally
        {
            s_results.Release();
        }
    }

    private static TimeSpan Check(GuestExecWish wish)
    {
        if (wish.Command is not { Count: >= 1 and <= MostArguments } command
            || command.Any(each => each is null || each.Contains('\0', StringComparison.Ordinal))
            || command[0].Length == 0
            || command.Sum(each => (long)Encoding.UTF8.GetByteCount(each)) > MostBytes)
        {
            throw Invalid($"command: expected a program and at most {MostArguments - 1} arguments, {MostBytes} bytes in all, "
                + "without zero bytes");
        }

        if (wish.Input is { Length: > MostInput })
        {
            throw Invalid($"input: {wish.Input.Length} bytes, at most {MostInput}");
        }

        return wish.Seconds is null or (>= 1 and <= MostSeconds)
            ? TimeSpan.FromSeconds(wish.Seconds ?? DefaultSeconds)
            : throw Invalid($"seconds: {wish.Seconds}, expected 1 to {MostSeconds}");
    }

    private static void Write(GuestExecWish wish, Utf8JsonWriter json)
    {
        json.WriteString("path"u8, wish.Command[0]);
        json.WriteStartArray("arg"u8);
        foreach (string argument in wish.Command.Skip(1))
        {
            json.WriteStringValue(argument);
        }

        json.WriteEndArray();
        if (wish.Input is { Length: > 0 } input)
        {
            json.WriteBase64String("input-data"u8, input);
        }

        json.WriteBoolean("capture-output"u8, value: true);
    }

    private static ApiException Invalid(string detail) => new(422, "exec-invalid", "the command cannot be carried out", detail);
}

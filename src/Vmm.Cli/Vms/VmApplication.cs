using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Machine.Spec;
using Vmm.Memory;

namespace Vmm.Cli.Vms;

/// <summary>What each <c>vmmctl vm</c> command does: asks the daemon and prints a table or its JSON.</summary>
internal sealed class VmApplication : IDisposable
{
    private const string Scheme = "unix:";

    private readonly VmmClient _client;
    private readonly bool _json;
    private readonly TextWriter _out;
    private readonly TextWriter _error;

    internal VmApplication(string host, bool json, TextWriter standardOutput, TextWriter standardError)
    {
        _client = new VmmClient(host.StartsWith(Scheme, StringComparison.Ordinal) ? host[Scheme.Length..] : host);
        _json = json;
        _out = standardOutput;
        _error = standardError;
    }

    /// <inheritdoc/>
    public void Dispose() => _client.Dispose();

    /// <summary>Carries a command out; an error is one line (a spec's are one line each) and exit code 1, or 2 when the spec is not sound.</summary>
    internal async Task<int> RunAsync(Func<Task<int>> command)
    {
        try
        {
            return await command().ConfigureAwait(false);
        }
        catch (VmmApiException e)
        {
            foreach (string line in e.Problem.Detail.Split('\n'))
            {
                Fail(line);
            }

            return e.Problem.Status is 422 or 400 ? ExitCodes.Usage : ExitCodes.Failed;
        }
        catch (OperationCanceledException)
        {
            return ExitCodes.Failed;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Fail(e.Message);
            return ExitCodes.Failed;
        }
    }

    internal async Task<int> ListAsync(CancellationToken cancellation)
    {
        VmList list = await _client.ListAsync(cancellation).ConfigureAwait(false);
        if (_json)
        {
            return Json(list, RestJson.Default.VmList);
        }

        Table table = new("NAME", "STATE", "CPUS", "MEMORY", "PID", "LAST EXIT");
        foreach (VmInfo vm in list.Vms)
        {
            table.Add(vm.Name, Word(vm.State), Number(vm.Cpus), Size(vm.MemoryBytes), vm.WorkerProcessId is { } pid ? Number(pid) : "-", Exit(vm.LastExit));
        }

        table.Write(_out);
        return ExitCodes.Done;
    }

    internal async Task<int> ShowAsync(string name, CancellationToken cancellation) => Show(await _client.ShowAsync(name, cancellation).ConfigureAwait(false));

    internal async Task<int> CreateAsync(string file, bool start, CancellationToken cancellation)
    {
        string yaml = await File.ReadAllTextAsync(file, cancellation).ConfigureAwait(false);
        VmInfo vm = await _client.CreateAsync(yaml, Path.GetDirectoryName(Path.GetFullPath(file))!, cancellation).ConfigureAwait(false);
        return start ? await DoAsync(vm.Name, "start", cancellation).ConfigureAwait(false) : Done(vm, "is defined");
    }

    internal async Task<int> DeleteAsync(string name, bool force, CancellationToken cancellation)
    {
        if (force && (await _client.ShowAsync(name, cancellation).ConfigureAwait(false)).State is VmState.Running or VmState.Paused)
        {
            await _client.DoAsync(name, "stop", cancellation).ConfigureAwait(false);
        }

        await _client.DeleteAsync(name, cancellation).ConfigureAwait(false);
        if (!_json)
        {
            await _out.WriteLineAsync($"{name} is forgotten; its disks are untouched").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }

    internal async Task<int> SpecAsync(string name, CancellationToken cancellation)
    {
        await _out.WriteAsync(await _client.SpecAsync(name, cancellation).ConfigureAwait(false)).ConfigureAwait(false);
        return ExitCodes.Done;
    }

    internal async Task<int> EditAsync(string name, CancellationToken cancellation)
    {
        VmInfo before = await _client.ShowAsync(name, cancellation).ConfigureAwait(false);
        string yaml = await _client.SpecAsync(name, cancellation).ConfigureAwait(false);
        DirectoryInfo folder = Directory.CreateTempSubdirectory("vmmctl-"); // nobody else's file, whatever was put there before
        string file = Path.Combine(folder.FullName, name + ".yaml");
        bool keep = false;
        await File.WriteAllTextAsync(file, yaml, cancellation).ConfigureAwait(false);
        try
        {
            string editor = Environment.GetEnvironmentVariable("EDITOR") is { Length: > 0 } wanted ? wanted : "vi";
            using Process process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", editor + " \"$1\"", "sh", file])) ?? throw new IOException($"{editor} does not start");
            await process.WaitForExitAsync(cancellation).ConfigureAwait(false);
            string changed = await File.ReadAllTextAsync(file, cancellation).ConfigureAwait(false);
            if (process.ExitCode != 0 || string.Equals(changed, yaml, StringComparison.Ordinal))
            {
                await _out.WriteLineAsync($"{name} is unchanged").ConfigureAwait(false);
                return process.ExitCode == 0 ? ExitCodes.Done : ExitCodes.Failed;
            }

            // No folder: relative paths stay relative to the one of the creation.
            keep = true;
            VmInfo after = await _client.ReplaceAsync(name, changed, "", before.Revision, cancellation).ConfigureAwait(false);
            keep = false;
            return Done(after, "is changed");
        }
        finally
        {
            if (keep)
            {
                Fail($"your text is kept in {file}");
            }
            else
            {
                folder.Delete(recursive: true);
            }
        }
    }

    internal async Task<int> DoAsync(string name, string verb, CancellationToken cancellation)
    {
        VmInfo vm = await _client.DoAsync(name, verb, cancellation).ConfigureAwait(false);
        return Done(vm, string.Equals(verb, "power-button", StringComparison.Ordinal) ? "was asked to power off" : "is " + Word(vm.State));
    }

    internal async Task<int> StatsAsync(string name, bool watch, CancellationToken cancellation)
    {
        WorkerStats? before = null;
        do
        {
            WorkerStats now = await _client.StatsAsync(name, cancellation).ConfigureAwait(false);
            if (_json)
            {
                Json(now, RestJson.Default.WorkerStats);
            }
            else
            {
                await _out.WriteLineAsync($"cpu {now.CpuMilliseconds} ms  resident {Size((ulong)now.ResidentBytes)}  exits {now.Exits}{(before is null ? "" : $" (+{now.Exits - before.Exits})")}").ConfigureAwait(false);
                foreach (DiskStats disk in now.Disks)
                {
                    await _out.WriteLineAsync($"  {disk.Name}: read {disk.ReadRequests} ({disk.ReadBytes} bytes)  written {disk.WriteRequests} ({disk.WrittenBytes} bytes)  flushes {disk.Flushes}  errors {disk.Errors}").ConfigureAwait(false);
                }
            }

            before = now;
            if (watch)
            {
                await Task.Delay(1000, cancellation).ConfigureAwait(false);
            }
        }
        while (watch);
        return ExitCodes.Done;
    }

    internal async Task<int> LimitAsync(string name, string device, string? bandwidth, long? operations, bool none, CancellationToken cancellation)
    {
        if (!TrySize(bandwidth, "--bandwidth", out ulong? bytes))
        {
            return ExitCodes.Usage;
        }

        if (none == (bytes is not null || operations is not null) || bytes == 0 || operations <= 0)
        {
            Fail("give --bandwidth, --operations or both, above zero; or --none");
            return ExitCodes.Usage;
        }

        await _client.LimitAsync(name, device, new Contracts.Control.DeviceLimits(bytes, (ulong?)operations), cancellation).ConfigureAwait(false);
        if (!_json)
        {
            await _out.WriteLineAsync($"{name}: {device} {(none ? "has no limit" : "is limited")}").ConfigureAwait(false);
        }

        return ExitCodes.Done;
    }

    internal async Task<int> MemoryAsync(string name, int vnode, string? size, string? balloon, int timeout, CancellationToken cancellation)
    {
        if (!TrySize(size, "--size", out ulong? bytes) || !TrySize(balloon, "--balloon", out ulong? balloonBytes))
        {
            return ExitCodes.Usage;
        }

        if (timeout is < 0 or > 600)
        {
            Fail($"--timeout {timeout}: expected 0 to 600 seconds");
            return ExitCodes.Usage;
        }

        bool change = bytes is not null || balloonBytes is not null;
        VmMemory memory = change
            ? await _client.ChangeMemoryAsync(name, new MemoryWish(vnode, bytes, balloonBytes), TimeSpan.FromSeconds(timeout), cancellation).ConfigureAwait(false)
            : await _client.MemoryAsync(name, cancellation).ConfigureAwait(false);
        if (_json)
        {
            Json(memory, RestJson.Default.VmMemory);
        }
        else
        {
            Table table = new("VNODE", "ASKED", "PRESENT", "LEAST", "MOST", "NOT GIVEN BACK", "DRIVER");
            foreach (VnodeMemoryInfo info in memory.Vnodes)
            {
                table.Add(Number(info.Vnode), Size(info.AskedBytes), Size(info.PresentBytes), Size(info.LeastBytes), Size(info.MostBytes), info.StuckBytes == 0 ? "-" : Size(info.StuckBytes), info.MostBytes == info.LeastBytes ? "fixed" : info.Driven ? "yes" : "no");
            }

            table.Write(_out);
            if (memory.Balloon is { } balloonInfo)
            {
                await _out.WriteLineAsync($"balloon: asked {Size(balloonInfo.TargetBytes)}, has {Size(balloonInfo.ActualBytes)}{(balloonInfo.FreeBytes is { } free ? $"; guest free {Size(free)}" : "")}").ConfigureAwait(false);
            }
        }

        if (!change || memory.Settled)
        {
            return ExitCodes.Done;
        }

        Fail($"{name}: the guest did not get there in {timeout} s; it goes on, 'vmmctl vm memory {name}' shows how far it is");
        return ExitCodes.Failed;
    }

    internal async Task<int> ConsoleAsync(string name, CancellationToken cancellation) => await RemoteConsole.RunAsync(_client, name, cancellation).ConfigureAwait(false);

    private int Show(VmInfo vm)
    {
        if (_json)
        {
            return Json(vm, RestJson.Default.VmInfo);
        }

        foreach ((string label, string value) in new[]
        {
            ("name", vm.Name), ("state", Word(vm.State)), ("id", vm.Id), ("revision", Number(vm.Revision)), ("cpus", Number(vm.Cpus)), ("memory", Size(vm.MemoryBytes)),
            ("worker", vm.WorkerProcessId is { } pid ? Number(pid) : "-"), ("last exit", Exit(vm.LastExit)),
        })
        {
            _out.WriteLine($"{label + ":",-11}{value}");
        }

        return ExitCodes.Done;
    }

    private int Done(VmInfo vm, string what)
    {
        if (_json)
        {
            return Json(vm, RestJson.Default.VmInfo);
        }

        _out.WriteLine($"{vm.Name} {what}");
        return ExitCodes.Done;
    }

    private int Json<T>(T value, JsonTypeInfo<T> type)
    {
        _out.WriteLine(JsonSerializer.Serialize(value, type));
        return ExitCodes.Done;
    }

    private bool TrySize(string? text, string option, out ulong? bytes)
    {
        bytes = null;
        if (text is null)
        {
            return true;
        }

        if (!SpecText.TryParseSize(text, out ByteSize size))
        {
            Fail($"{option} {text}: expected a size such as 512MiB or 2GiB");
            return false;
        }

        bytes = size;
        return true;
    }

    private void Fail(string line) => _error.WriteLine("vmmctl: " + line);

    private static string Word(VmState state) => state.ToString().ToLowerInvariant();

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Size(ulong bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:0.#} MiB");

    private static string Exit(WorkerExit? exit) => exit is null ? "-" : exit.Message is { } message ? $"{exit.Reason}: {message}" : exit.Reason.ToString();
}

using System.Diagnostics;
using System.Globalization;
using Vmm.Contracts.Rest;

namespace Vmm.Perf;

/// <summary>The published vmmd in a folder of its own. Disposing ends its VMs, then the daemon, then the folder.</summary>
internal sealed class RunningDaemon : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-perf-").FullName;
    private readonly Process _process;
    private readonly List<int> _workers = [];

    internal RunningDaemon(string program, int pool)
    {
        string log = Path.Combine(_folder, "log");
        ProcessStartInfo info = new("/bin/sh") { UseShellExecute = false };
        string[] arguments = ["-c", "exec \"$0\" \"$@\" >\"$VMM_PERF_LOG\" 2>&1", program, "--state", Path.Combine(_folder, "state"),
            "--run", Path.Combine(_folder, "run"),
            "--storage", "/", "--pool", pool.ToString(CultureInfo.InvariantCulture)];
        foreach (string argument in arguments)
        {
            info.ArgumentList.Add(argument);
        }

        info.Environment["VMM_PERF_LOG"] = log;
        _process = Process.Start(info)!;
        Client = new VmmClient(Path.Combine(_folder, "run", "vmmd.sock"));
        try
        {
            WaitUntilItAnswers(log);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    internal VmmClient Client { get; }

    /// <summary>Creates a VM and starts it; answers when its vCPUs run.</summary>
    internal VmInfo Launch(string name, string kernel, int memoryMiB, string more = "", string cmdline = "")
    {
        string yaml =
            Row.Invariant($"name: {name}\nmemory: {memoryMiB}MiB\ndebugExit: true\n")
            + $"boot: {{kernel: {kernel}, cmdline: \"{cmdline}\"}}\n{more}";
        _ = Client.CreateAsync(yaml, "/", CancellationToken.None).GetAwaiter().GetResult();
        return Own(Client.DoAsync(name, "start", CancellationToken.None).GetAwaiter().GetResult());
    }

    /// <summary>The VM's worker ends with this daemon, however that ends.</summary>
    internal VmInfo Own(VmInfo vm)
    {
        if (vm.WorkerProcessId is { } worker)
        {
            _workers.Add(worker);
        }

        return vm;
    }

    /// <summary>Waits until the VM's vCPUs have left KVM for user space at least once.</summary>
    internal void WaitForExit(string name)
    {
        long begin = Stopwatch.GetTimestamp();
        while (Client.StatsAsync(name, CancellationToken.None).GetAwaiter().GetResult().Exits == 0)
        {
            if (Stopwatch.GetElapsedTime(begin) > TimeSpan.FromSeconds(20))
            {
                throw new InvalidOperationException($"{name} made no exit in 20 s");
            }
        }
    }

    internal void Forget(string name)
    {
        _ = Client.DoAsync(name, "stop", CancellationToken.None).GetAwaiter().GetResult();
        Client.DeleteAsync(name, CancellationToken.None).GetAwaiter().GetResult();
    }

    public void Dispose()
    {
        foreach (int worker in _workers)
        {
            Kill(worker);
        }

        if (!_process.HasExited)
        {
            using Process term = Process.Start("kill", ["-TERM", _process.Id.ToString(CultureInfo.InvariantCulture)]);
            term.WaitForExit();
            if (!_process.WaitForExit(TimeSpan.FromSeconds(20)))
            {
                _process.Kill();
                _process.WaitForExit();
            }
        }

        Client.Dispose();
        _process.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    // Only what is still a worker: by now the number could be another process's.
    private static void Kill(int worker)
    {
        try
        {
            using Process process = Process.GetProcessById(worker);
            if (process.ProcessName.StartsWith("vmm-worker", StringComparison.Ordinal))
            {
                process.Kill();
                process.WaitForExit();
            }
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException)
        {
            // Gone already.
        }
    }

    private void WaitUntilItAnswers(string log)
    {
        for (int tries = 0; tries < 200 && !_process.HasExited; tries++)
        {
            try
            {
                _ = Client.ListAsync(CancellationToken.None).GetAwaiter().GetResult();
                return;
            }
            catch (VmmApiException)
            {
                Thread.Sleep(50);
            }
        }

        throw new InvalidOperationException($"vmmd does not answer: {File.ReadAllText(log)}");
    }
}

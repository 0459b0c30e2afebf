using Vmm.Daemon;
using Vmm.Daemon.Hosting;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Workers;
using Vmm.Interop;

LossyWriter.UseForErrors();
if (args is ["--help" or "-h"])
{
    Console.WriteLine(DaemonHelp.Text);
    return 0;
}

if (args is ["--version"])
{
    Console.WriteLine("vmmd " + DaemonOptions.Version);
    return 0;
}

if (DaemonOptions.Parse(args, out string problem) is not { } options)
{
    Console.Error.WriteLine("vmmd: " + problem);
    return 2;
}

using ProcessSignals signals = new();
try
{
    await using DaemonHost host = DaemonHost.Build(options);
    signals.OnHangUp(() => host.Reload(DaemonOptions.Parse(args, out string wrong), wrong));
    await host.StartAsync(signals.Stop);
    await host.WaitAsync(signals.Stop);
    return 0;
}
catch (OperationCanceledException) when (signals.Stop.IsCancellationRequested)
{
    return 0;
}
catch (Exception e) when (e is InventoryException or IOException or UnauthorizedAccessException or WorkerException)
{
    Console.Error.WriteLine("vmmd: " + e.Message);
    return 1;
}

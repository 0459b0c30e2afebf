using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.HostNet;
using Vmm.LifeCycle;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Saved;
using Vmm.Spec;
using Vmm.State;

namespace Vmm.Run;

/// <summary>Runs a machine in this process, from its kernel or from where it was saved, to its end or to its save.</summary>
public static class ForegroundMachine
{
    private static readonly TimeSpan s_restTime = TimeSpan.FromSeconds(60); // for its devices to come to rest
    private static readonly TimeSpan s_portTime = TimeSpan.FromSeconds(5), s_portPause = TimeSpan.FromMilliseconds(50);

    /// <summary>Runs it. A <see cref="MachineRunner"/>.</summary>
    public static RunResult Run(RunRequest request, IConsoleEndpoint console, Action<string>? note, CancellationToken stop)
    {
        using MemoryVariables variables = new();
        return Run(request, saved => saved is null
            ? VirtualMachine.Create(request.Spec, console, note, variables)
            : saved.Restore(
                new PathResources { Note = note, Variables = variables }, console, lazily: request.Lazily, cancel: stop), note, stop);
    }

    /// <summary>
    /// As the other, with machines from elsewhere. A guest that firmware started goes on after a reset, in a new machine: devices are as
    /// after power-on, the variables of the firmware as they were. So does vmmd, in a new worker.
    /// </summary>
    internal static RunResult Run(
        RunRequest request, Func<SavedMachine?, VirtualMachine> build, Action<string>? note, CancellationToken stop)
    {
        RestartPace pace = new();
        bool begun = false;
        while (true)
        {
            long begin = Stopwatch.GetTimestamp();
            RunResult result;
            using (VirtualMachine machine = begun ? Rebuild(build, stop) : build(request.Restore))
            {
                begun = true;
                result = request.SaveTo is null ? machine.Run(stop) : RunToSave(machine, request.SaveTo, note, stop);
            }

            if (result.Reason != ExitReason.Reset || !GoesOn(request.Spec))
            {
                return result;
            }

            TimeSpan delay = pace.After(isReboot: true, Stopwatch.GetElapsedTime(begin));
            note?.Invoke(string.Create(CultureInfo.InvariantCulture, $"{request.Spec.Name}: the guest rebooted and starts again")
                + (delay > TimeSpan.Zero ? string.Create(CultureInfo.InvariantCulture, $" in {delay.TotalSeconds:0} s") : ""));
            if (stop.WaitHandle.WaitOne(delay))
            {
                return new RunResult(ExitReason.Stopped, Message: request.SaveTo is null ? null
                    : $"nothing was saved in {request.SaveTo}: it was told to stop between two starts of its guest");
            }
        }
    }

    // Whoever served the network of the machine before may still have its ports for a moment.
    private static VirtualMachine Rebuild(Func<SavedMachine?, VirtualMachine> build, CancellationToken stop)
    {
        long begin = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                return build(null);
            }
            catch (HostNetException) when (Stopwatch.GetElapsedTime(begin) < s_portTime && !stop.WaitHandle.WaitOne(s_portPause))
            {
                // once more
            }
        }
    }

    private static bool GoesOn(VmSpec spec) => spec.Boot.IsFirmware && spec.OnReboot == RebootPolicy.Restart;

    /// <summary>
    /// Told to stop, it saves the machine and ends it. When that fails the machine goes on, and the next signal ends it as it would without
    /// a save.
    /// </summary>
    private static RunResult RunToSave(VirtualMachine machine, string folder, Action<string>? note, CancellationToken stop)
    {
        using CancellationTokenSource end = new();
        bool isSaved = false, hasFailed = false;
        Thread save = new(() =>
        {
            try
            {
                MachineSave.SaveAsync(machine, folder, s_restTime, goOn: false, cancel: CancellationToken.None).GetAwaiter().GetResult();
                Volatile.Write(ref isSaved, true);
                end.Cancel();
            }
            catch (Exception cause) when (cause is IOException or UnauthorizedAccessException or StateException or UnitsException
                or InvalidOperationException)
            {
                Volatile.Write(ref hasFailed, true);
                note?.Invoke($"{machine.Spec.Name}: it was not saved and runs on: {cause.Message}; another SIGTERM ends it");
            }
        })
        { Name = "save", IsBackground = true };

        void Again(PosixSignalContext signal)
        {
            signal.Cancel = true;
            if (Volatile.Read(ref hasFailed))
            {
                end.Cancel();
            }
        }

        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Again);
        using PosixSignalRegistration terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Again);
        RunResult result;
        using (stop.Register(save.Start))
        {
            result = machine.Run(end.Token);
        }

        if ((save.ThreadState & System.Threading.ThreadState.Unstarted) == 0)
        {
            save.Join();
        }

        return isSaved
            ? result with { Message = $"saved in {folder}; vmmctl run --restore {folder} goes on" }
            : result;
    }
}

using System.Net.WebSockets;
using Vmm.Contracts.Rest;
using Vmm.Interop;

namespace Vmm.Cli.Vms;

/// <summary>The console of a VM that a daemon runs, on this terminal. Leaving it leaves the VM alone.</summary>
internal static class RemoteConsole
{
    internal static async Task<int> RunAsync(VmmClient client, string name, CancellationToken cancellation)
    {
        using WebSocket socket = await client.ConsoleAsync(name, cancellation).ConfigureAwait(false);
        using CancellationTokenSource leave = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        using Terminal terminal = new();
        TerminalConsole console = new(terminal, readInput: true, leave.Cancel);
        using CancellationTokenRegistration hurry = leave.Token.Register(console.Hurry);
        if (terminal.IsInteractive)
        {
            Console.Error.Write($"connected to {name}; Ctrl-A x leaves\r\n");
        }

        terminal.EnterRawMode();
        ConsoleSender sender = new(socket, leave.Token);
        Thread input = new(() => Feed(console, sender, leave)) { Name = "console-input", IsBackground = true };
        try
        {
            input.Start();
            console.OnResize(sender.Size);
            byte[] buffer = new byte[16 * 1024];
            while (true)
            {
                ValueWebSocketReceiveResult received = await socket.ReceiveAsync(buffer.AsMemory(), leave.Token).ConfigureAwait(false);
                if (received.MessageType == WebSocketMessageType.Close)
                {
                    return ExitCodes.Done;
                }

                console.Write(buffer.AsSpan(0, received.Count));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or WebSocketException)
        {
            return leave.IsCancellationRequested ? ExitCodes.Done : ExitCodes.Failed;
        }
        finally
        {
            console.StopReading();
            console.Dispose();
            input.Join();
            terminal.Restore();
        }
    }

    private static void Feed(TerminalConsole console, ConsoleSender sender, CancellationTokenSource leave)
    {
        byte[] buffer = new byte[256];
        int count;
        while (!leave.IsCancellationRequested && (count = console.Read(buffer)) > 0)
        {
            if (!sender.Input(buffer.AsMemory(0, count)))
            {
                return;
            }
        }
    }
}

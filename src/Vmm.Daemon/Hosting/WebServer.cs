using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.DependencyInjection;
using Vmm.Daemon.Access;
using Vmm.Daemon.Api;

namespace Vmm.Daemon.Hosting;

/// <summary>
/// The listeners of the REST interface and what a request passes: Kestrel on the unix socket, and with TLS where that is asked for.
/// </summary>
internal static class WebServer
{
    /// <summary>Adds the web server to the host. It starts behind what was registered before it, and stops before that.</summary>
    internal static void Configure(IWebHostBuilder web, DaemonOptions options)
    {
        web.UseSetting(WebHostDefaults.PreventHostingStartupKey, "true");
        web.UseKestrelCore();
        web.ConfigureKestrel(kestrel => Listen(kestrel, options));
        web.ConfigureServices(
            services => services.AddRouting().Configure<SocketTransportOptions>(transport => transport.CreateBoundListenSocket = Bind));
        web.Configure(Pipeline);
    }

    private static void Listen(KestrelServerOptions kestrel, DaemonOptions options)
    {
        kestrel.AddServerHeader = false;
        ConnectionGuard guard = kestrel.ApplicationServices.GetRequiredService<ConnectionGuard>();
        ConnectionGuard.SetLimits(kestrel.Limits);
        if (ServiceManager.PassesSocket)
        {
            kestrel.ListenHandle(ServiceManager.FirstSocket, guard.GuardLocal);
        }
        else
        {
            kestrel.ListenUnixSocket(options.SocketPath, guard.GuardLocal);
        }

        if (options.Listen is { } at)
        {
            TlsEndpoint.Add(kestrel, at, options, guard);
        }
    }

    private static Socket Bind(EndPoint at) =>
        at is UnixDomainSocketEndPoint unix ? ListenSocket.Bind(unix) : SocketTransportOptions.CreateDefaultBoundListenSocket(at);

    private static void Pipeline(IApplicationBuilder app)
    {
        app.UseRouting();
        app.UseMiddleware<RequestGuard>();
        app.UseWebSockets();
        app.UseEndpoints(Endpoints.Map);
    }
}
